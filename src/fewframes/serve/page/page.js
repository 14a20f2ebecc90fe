import {$, clock, draw, make, percent, sized} from './dom.js';

const video = $('video');
let about = {}, running = null, answers = {};

function showError(message) {
  $('error').textContent = message;
  $('status').textContent = '';
}

function showProgress(words, fraction) {
  if ($('doing').textContent !== words) $('doing').textContent = words;
  if (fraction === undefined) $('bar').removeAttribute('value'); else $('bar').value = fraction;
}

/* Send a file (as a form) or a name (as JSON), and return the server's answer. `onLine` is called with each line of progress. */
function ask(route, source, values, onLine = () => {}) {
  return new Promise((resolve, reject) => {
    const request = running = new XMLHttpRequest();
    let read = 0, last = null;
    const lines = () => {
      const end = request.responseText.lastIndexOf('\n') + 1;
      for (const line of request.responseText.slice(read, end).split('\n').filter(Boolean)) onLine(last = JSON.parse(line));
      read = end;
    };
    request.open('POST', route);
    if ($('token').value) request.setRequestHeader('Authorization', `Bearer ${$('token').value}`);
    request.upload.onprogress = event => showProgress('Sending the video', event.loaded / event.total);
    request.upload.onload = () => showProgress('Analysing the video');
    request.onprogress = () => { if (values.progress && request.status === 200) lines(); };
    request.onabort = () => reject(new Error('cancelled'));
    request.onerror = () => reject(new Error('the server cannot be reached, or closed the connection'));
    request.onload = () => {
      let answer;
      try {
        if (values.progress && request.status === 200) {
          lines();
          answer = last?.result ?? (last?.error ? last : {error: 'the answer broke off before its end; choose the video again'});
        } else answer = JSON.parse(request.responseText);
      } catch { answer = {error: `the server answered ${request.status} without a reason`}; }
      if (answer.error) reject(Object.assign(new Error(answer.error), {status: answer.status})); else resolve(answer);
    };
    if (source instanceof File) {
      const form = new FormData();
      for (const [name, value] of Object.entries(values)) form.append(name, value);
      form.append('file', source);
      request.send(form);
    } else {
      request.setRequestHeader('Content-Type', 'application/json');
      request.send(JSON.stringify({...source, ...values}));
    }
  });
}

async function look(source) {
  if (running) { const before = running; running = null; before.abort(); }
  const mine = look.turn = (look.turn || 0) + 1;
  const name = source instanceof File ? source.name : source.url || source.path;
  $('error').textContent = '';
  $('results').hidden = $('timeline').hidden = true;
  answers = {};
  if (source instanceof File && source.size > about.max_mb * 1e6) {
    showError(`${name}: ${(source.size / 1e6).toFixed(1)} MB; the limit here is ${about.max_mb} MB`);
    return;
  }
  play(source);
  $('work').hidden = false;
  $('status').textContent = `Analysing ${name}`;
  showProgress('Connecting');
  const model = about.models ? {model: $('model').value} : {};
  try {
    const found = await ask('v1/predict', source, {topk: 5, explain: true, pictures: true, ...model});
    if (mine !== look.turn) return;
    showPrediction(found, name);
    showProgress('Finding what happens when');
    const timeline = await ask('v1/timeline', source, {progress: true, ...model}, line => {
      if (line.progress) showProgress('Finding what happens when', line.progress.total ? line.progress.done / line.progress.total : undefined);
    });
    if (mine === look.turn) showTimeline(timeline);
  } catch (error) {
    if (mine !== look.turn) return;
    showError(error.status === 401 ? 'This server asks for a token: type it, then choose the video again' : error.message);
    if (error.status === 401) { $('token-row').hidden = false; $('token').focus(); }
  } finally {
    if (mine === look.turn) { $('work').hidden = true; running = null; }
  }
}

/* Show the chosen file in the browser's own player. A file that it cannot play has no moments to jump to. */
function play(source) {
  if (video.src) URL.revokeObjectURL(video.src);
  video.removeAttribute('src');
  const isHere = source instanceof File;
  video.hidden = !isHere;
  $('player-note').textContent = isHere ? '' : 'A video on the server is not shown here.';
  if (isHere) video.src = URL.createObjectURL(source);
}

video.addEventListener('error', () => {
  if (!video.hasAttribute('src')) return;
  video.hidden = true;
  $('player-note').textContent = 'Your browser cannot play this kind of file, so moments cannot be shown; the server could read it.';
  for (const button of document.querySelectorAll('[data-at]')) button.disabled = true;
});

function jumpTo(time_s) {
  if (video.hidden) return;
  video.pause();
  video.currentTime = time_s;
  video.scrollIntoView({block: 'nearest'});
  $('status').textContent = `The video stands at ${clock(time_s)}`;
}

function jumper(time_s, words, ...children) {
  const button = make('button', {type: 'button', 'data-at': time_s, 'aria-label': words}, ...children);
  button.disabled = video.hidden;
  button.addEventListener('click', () => jumpTo(time_s));
  return button;
}

function showPrediction(found, name) {
  const best = found.top[0];
  const isUnknown = found.label === 'unknown', answer = isUnknown ? `unknown: ${found.reason}` : `${best.label}, ${percent(best.score)}`;
  $('top-title').textContent = answer;
  $('top-note').textContent = isUnknown ? 'The nearest actions, with their scores:' : found.unfamiliar ? `Unfamiliar: ${found.reason}.` : '';
  $('top').replaceChildren(...found.top.map(({label, score}) =>
    make('li', {}, make('span', {text: label}), make('span', {text: percent(score)}),
      make('div', {class: 'bar', 'aria-hidden': 'true'}, sized('i', 'width', score)))));
  const most = Math.max(...found.frame_attention);
  $('strip').replaceChildren(...found.frame_attention.map((attention, index) => {
    const time_s = found.times_s[index], fall = 100 * found.explanation.occlusion[index];
    const words = `${clock(time_s)}, attention ${percent(attention)}; without it the score ${fall < 0 ? 'rises' : 'falls'} by ${Math.abs(fall).toFixed(2)} points`;
    const button = jumper(time_s, words, make('img', {src: found.pictures[index], alt: ''}),
      make('div', {class: 'column'}, sized('i', 'height', attention / most)),
      make('span', {text: clock(time_s)}), make('span', {text: percent(attention)}));
    button.title = words;
    if (attention === most) button.className = 'most';
    return make('li', {}, button);
  }));
  const {pictures, ...rest} = found;
  answers.predict = rest;
  showJson();
  $('results').hidden = false;
  $('status').textContent = `${name}: ${answer}`;
  $('top-title').focus();
}

function showTimeline(found) {
  const position = time_s => (time_s - found.start_s) / (found.end_s - found.start_s);
  const labels = [...new Set(found.spans.map(span => span.label))];
  const threshold = percent(found.threshold), gaps = found.gaps.map(gap => ` Left out: ${clock(gap.start_s)} to ${clock(gap.end_s)} (${gap.error}).`);
  $('timeline-note').textContent = (labels.length ? `Actions with a confidence of at least ${threshold}, from ${clock(found.start_s)} to ${clock(found.end_s)}.` +
    ' Choose one to see that moment.' : `No action with a confidence of at least ${threshold}.`) + gaps.join('');
  const tracks = labels.map(label => {
    const points = found.scores[label].map((score, index) => `${1000 * position(found.times_s[index])},${100 - 96 * score}`).join(' ');
    const svg = draw('svg', {viewBox: '0 0 1000 100', preserveAspectRatio: 'none'}, draw('polyline', {points}));
    const spans = found.spans.filter(span => span.label === label).map(span => {
      const block = sized('i', 'left', position(span.start_s));
      block.style.width = `${100 * (position(span.end_s) - position(span.start_s))}%`;
      return block;
    });
    return make('div', {class: 'track'}, ...spans, svg, make('span', {text: label}));
  });
  const now = make('div', {id: 'now'});
  $('tracks').replaceChildren(...tracks, ...(tracks.length && !video.hidden ? [now] : []));
  $('tracks').onclick = event => {
    const box = $('tracks').getBoundingClientRect();
    jumpTo(found.start_s + (found.end_s - found.start_s) * (event.clientX - box.left) / box.width);
  };
  video.ontimeupdate = () => { now.style.left = `${100 * Math.max(0, Math.min(1, position(video.currentTime)))}%`; };
  $('spans').replaceChildren(...found.spans.map(span => {
    const words = `${clock(span.start_s)} to ${clock(span.end_s)}: ${span.label}, ${percent(span.confidence)}`;
    return make('li', {}, jumper(span.start_s, words, words));
  }));
  answers.timeline = found;
  showJson();
  $('timeline').hidden = false;
  $('status').textContent = `Timeline: ${found.spans.length} ${found.spans.length === 1 ? 'moment' : 'moments'}`;
}

function showJson() { $('json').textContent = JSON.stringify(answers, null, 1); }

$('copy').addEventListener('click', async () => {
  try {
    await navigator.clipboard.writeText($('json').textContent);
    $('status').textContent = 'Copied';
  } catch { // pages that do not come over HTTPS, or from this machine, have no clipboard
    getSelection().selectAllChildren($('json'));
    $('status').textContent = 'Selected; press Ctrl-C to copy';
  }
});
$('cancel').addEventListener('click', () => { if (running) running.abort(); $('file').focus(); });
$('file').addEventListener('change', event => {
  const file = event.target.files[0];
  event.target.value = ''; // so that the same file can be chosen again
  if (file) look(file);
});
$('form').addEventListener('submit', event => {
  event.preventDefault();
  const name = $('place').value.trim();
  if (name) look(/^https?:/i.test(name) ? {url: name} : {path: name});
});
for (const type of ['dragenter', 'dragover', 'dragleave', 'drop']) document.addEventListener(type, event => {
  event.preventDefault();
  $('drop').classList.toggle('over', type === 'dragenter' || type === 'dragover');
  if (type === 'drop' && event.dataTransfer.files.length) look(event.dataTransfer.files[0]);
});

function describeModel() {
  const {name, labels} = about.models?.find(one => one.name === $('model').value) || {name: about.model, labels: about.labels};
  $('about').textContent = `${name.includes('/') ? 'The model' : name} looks at a handful of frames and names one of ${labels.length} actions: ${labels.slice(0, 12).join(', ')}${labels.length > 12 ? ', ...' : ''}.`;
}
$('model').addEventListener('change', describeModel);

(async () => {
  try {
    about = await (await fetch('v1/about')).json();
  } catch {
    showError('the server cannot be reached');
    return;
  }
  for (const {name} of about.models || []) $('model').append(make('option', {text: name, value: name}));
  $('model-row').hidden = !about.models;
  describeModel();
  $('limits').textContent = `Up to ${about.max_mb} MB, ${about.max_seconds} s, ${about.max_megapixels} million pixels per frame. Your video is not kept.`;
  $('named').hidden = !about.takes_urls && !about.takes_paths;
  $('place-label').textContent = [about.takes_urls && 'Address', about.takes_paths && 'Path on the server'].filter(Boolean).join(' or ');
  $('token-row').hidden = !about.needs_token;
})();
