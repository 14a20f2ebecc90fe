import {Model, after, fitted, framesOf, partCentres, pictureOf} from './fewframes.js';

/* The seconds that an answer about the camera is about; the model's frames are spread over them evenly. */
const WINDOW_S = 3.2;
const $ = id => document.getElementById(id);
const video = $('video'), percent = fraction => `${(100 * fraction).toFixed(1)} %`;
const clock = s => `${Math.floor(s / 60)}:${(s % 60).toFixed(1).padStart(4, '0')}`;
/* The work that goes on. A new choice aborts it. */
let work = new AbortController(), model;

/* Make an element with text, attributes and children. Text is never taken for HTML. */
function make(tag, {text, ...attributes} = {}, ...children) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/* Make a bar that is filled to a fraction. */
function bar(fraction) {
  const inner = make('i');
  inner.style.width = `${100 * Math.max(0, Math.min(1, fraction))}%`;
  return make('span', {class: 'bar', 'aria-hidden': 'true'}, inner);
}

/* Draw a square (3, S, S) as the network sees it. */
function drawn(square, size) {
  const canvas = make('canvas', {width: size, height: size, 'aria-hidden': 'true'}), image = new ImageData(size, size);
  image.data.fill(255);
  for (let i = 0, n = size * size; i < n; i++)
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = square[c * n + i];
  canvas.getContext('2d').putImageData(image, 0, 0);
  return canvas;
}

/* Show an answer and the frames that it rests on: [{canvas, timeS}]. */
function show(answer, frames, seconds) {
  $('title').textContent = `${answer.top[0].label}, ${percent(answer.top[0].score)}`;
  $('top').replaceChildren(...answer.top.map(({label, score}) =>
    make('li', {}, make('span', {text: label}), make('span', {text: percent(score)}), bar(score))));
  $('seconds').textContent = seconds;
  const most = Math.max(...answer.attention);
  $('strip').replaceChildren(...frames.map(({canvas, timeS}, index) => make('li',
    answer.attention[index] === most ? {class: 'most'} : {}, canvas, bar(answer.attention[index] / most),
    make('span', {text: `${clock(timeS)}, ${percent(answer.attention[index])}`}))));
  $('answer').hidden = $('seen').hidden = false;
}

/* Stop what goes on and clear the page. Return the signal that ends what begins now. */
function begin(words) {
  work.abort();
  work = new AbortController();
  video.srcObject?.getTracks().forEach(track => track.stop());
  if (video.src) URL.revokeObjectURL(video.src);
  video.srcObject = null;
  video.removeAttribute('src');
  $('error').textContent = '';
  $('status').textContent = words;
  $('answer').hidden = $('seen').hidden = $('progress').hidden = true;
  $('camera').textContent = 'Use the camera';
  return work.signal;
}

/* Run a job, and say its error unless another job has taken its place. */
async function run(words, job) {
  const signal = begin(words);
  try {
    await job(signal);
  } catch (error) {
    if (signal.aborted) return;
    $('status').textContent = '';
    $('progress').hidden = true;
    $('error').textContent = error.message;
  }
}

/* Label a video file. */
function labelFile(file) {
  return run(`Reading ${file.name}`, async signal => {
    const {view, num_frames: numFrames} = model.about, began = performance.now();
    video.hidden = false;
    video.controls = true;
    await after(video, 'loadeddata', () => { video.src = URL.createObjectURL(file); });
    if (!Number.isFinite(video.duration)) throw new Error(`${file.name}: its length is not known; save it as MP4`);
    $('progress').hidden = false;
    const frames = [], embeddings = [], spent = {decode: 0, resize: 0, network: 0};
    let last = performance.now();
    const lap = part => { const now = performance.now(); spent[part] += now - last; last = now; };
    for await (const {picture, timeS} of framesOf(video, partCentres(0, video.duration, numFrames))) {
      if (signal.aborted) return;
      lap('decode');
      const square = fitted(picture, view);
      lap('resize');
      embeddings.push(await model.embed(square));
      lap('network');
      frames.push({canvas: drawn(square, view.crop_px), timeS});
      $('progress').value = frames.length / numFrames;
    }
    const answer = await model.label(embeddings);
    lap('network');
    if (signal.aborted) return;
    $('progress').hidden = true;
    $('status').textContent = `${file.name}: done`;
    const parts = Object.entries(spent).map(([part, ms]) => `${part} ${(ms / 1000).toFixed(2)} s`).join(', ');
    show(answer, frames, `${((performance.now() - began) / 1000).toFixed(2)} s: ${parts}`);
    $('title').focus();
  });
}

/* Label the last seconds of the camera, again and again. Each frame goes through the frame encoder once. */
function labelCamera() {
  return run('Opening the camera', async signal => {
    if (!navigator.mediaDevices) throw new Error('browsers give the camera to pages of https or of localhost only');
    const stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: 'environment'}, audio: false});
    signal.addEventListener('abort', () => stream.getTracks().forEach(track => track.stop()));
    if (signal.aborted) return stream.getTracks().forEach(track => track.stop());
    video.hidden = video.controls = false;
    await after(video, 'loadeddata', () => { video.srcObject = stream; });
    await video.play();
    $('camera').textContent = 'Stop the camera';
    const {view, num_frames: numFrames} = model.about, began = performance.now(), ring = [];
    for (let due = began; !signal.aborted; due = Math.max(due + 1000 * WINDOW_S / numFrames, performance.now())) {
      await new Promise(resolve => setTimeout(resolve, due - performance.now()));
      const taken = performance.now(), square = fitted(await pictureOf(video), view);
      const embedding = await model.embed(square);
      ring.push({canvas: drawn(square, view.crop_px), timeS: (taken - began) / 1000, embedding});
      if (ring.length > numFrames) ring.shift();
      if (signal.aborted) return;
      $('status').textContent = ring.length < numFrames ? `Watching: ${ring.length} of ${numFrames} frames` : 'Watching';
      if (ring.length < numFrames) continue;
      const answer = await model.label(ring.map(({embedding}) => embedding));
      if (signal.aborted) return;
      const ms = performance.now() - taken, spanS = ring.at(-1).timeS - ring[0].timeS;
      show(answer, ring, `the last ${spanS.toFixed(1)} s; ${ms.toFixed(0)} ms after the newest frame`);
    }
  });
}

$('file').addEventListener('change', () => { if ($('file').files.length) labelFile($('file').files[0]); });
$('camera').addEventListener('click', () => {
  if (video.srcObject) begin('The camera is off');
  else labelCamera();
});
for (const kind of ['dragover', 'dragleave', 'drop']) $('choice').addEventListener(kind, event => {
  event.preventDefault();
  $('choice').classList.toggle('over', kind === 'dragover');
  if (kind === 'drop' && model && event.dataTransfer.files.length) labelFile(event.dataTransfer.files[0]);
});

try {
  model = await Model.load('./');
  const {name, labels, num_frames: numFrames} = model.about;
  $('about').textContent = `${name}: ${labels.length} actions, told from ${numFrames} frames. The video does not leave this machine.`;
  $('file').disabled = $('camera').disabled = false;
} catch (error) {
  $('about').textContent = 'The model is not loaded.';
  $('error').textContent = error.message;
}
