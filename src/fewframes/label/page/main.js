/* The page for labelling: what is chosen, what an answer does, and the keys. */
import {$, clock, make} from './dom.js';
import {change, connection, get, onConnection, post, send} from './api.js';
import {Grid} from './grid.js';
import {describeDoubt, describeSegment, describeSuggestion, huesOf, keysOf, NONE_KEY, showChips, showList, showMoment, showQuality} from './panel.js';
import {Player} from './player.js';
import {named, Timeline} from './timeline.js';

const POLL_MS = 1500, MOST_DOUBTS = 20, LEAST_S = .1, COMMANDS = ['timeline', 'predict', 'stream', 'serve'];
const isStill = matchMedia('(prefers-reduced-motion: reduce)').matches;
let about = {}, state = {videos: [], labels: [], curve: [], revision: -1}, data = null, video = null, chosen = null, marks = {}, lastLabel = null;
let doubts = [], hue = huesOf([]), isWriting = false, isAsking = false;

const player = new Player((time_s, isPaused) => {
  timeline.setTime(time_s);
  $('clock').textContent = `${clock(time_s)} / ${clock(player.duration_s)}`;
  if (isPaused !== ($('play').textContent === 'Play')) {
    $('play').textContent = isPaused ? 'Play' : 'Pause';
    $('play').setAttribute('aria-label', isPaused ? 'Play' : 'Pause');
  }
});
const timeline = new Timeline({
  seek: time_s => player.seek(time_s),
  mark: (start_s, end_s, time_s) => { player.pause(); player.seek(time_s); setMarks({start_s, end_s}); },
  pick: (kind, item) => choose(kind, item),
});
const grid = new Grid(nameOf, label => hue(label));

const say = words => { $('status').textContent = words; };
const fail = error => { $('error').textContent = error ? error.message : ''; };
function nameOf(id) { return state.videos.find(info => info.id === id)?.name ?? id; }

/* Run something that asks the server, and show its error. */
async function trying(work) {
  try {
    const result = await work();
    fail();
    return result;
  } catch (error) {
    if (!error.isOffline) fail(error);
    return null;
  }
}

/* --- what is known --- */

async function refresh(isForced = false) {
  const before = state;
  const found = await get('api/state');
  if (!isForced && found.revision === before.revision && JSON.stringify(found.videos) === JSON.stringify(before.videos)) return;
  state = found;
  hue = huesOf(state.labels);
  showVideos();
  if (!video) await openFirst();
  else if (video) await loadTimeline(false);
  doubts = state.num_segments ? (await get(`api/doubtful?num=${MOST_DOUBTS}`)).doubts : [];
  show();
}

function showVideos() {
  const words = info => info.status === 'failed' ? `cannot be read: ${info.reason}` : info.status === 'ready' ? (info.num_segments ? `${info.num_segments} labelled` : '') : info.status === 'embedding' ? 'being looked at' : 'waiting';
  const options = state.videos.map(info => {
    const option = make('option', {value: info.id, text: [info.name, words(info)].filter(Boolean).join(' · ')});
    option.disabled = info.status === 'failed';
    return option;
  });
  if (document.activeElement !== $('videos')) {
    $('videos').replaceChildren(...options);
    if (video) $('videos').value = video.id;
  }
}

async function openFirst() {
  const first = state.videos.find(info => info.status === 'ready') ?? state.videos.find(info => info.status !== 'failed');
  if (first) await open(first.id);
}

async function open(id, time_s = 0) {
  const info = state.videos.find(found => found.id === id);
  if (!info) return;
  video = info;
  chosen = null;
  marks = {};
  $('videos').value = id;
  player.load(info, time_s);
  await loadTimeline(true);
  show();
}

async function loadTimeline(isNew) {
  const id = video.id, found = await get(`api/videos/${encodeURIComponent(id)}/timeline`);
  if (id !== video.id) return;
  data = found;
  video = state.videos.find(info => info.id === id) ?? video;
  player.info = {...video, duration_s: found.duration_s};
  timeline.show(found, hue, isNew);
  if (chosen?.kind === 'segment') {
    const kept = found.segments.find(segment => segment.id === chosen.id);
    chosen = kept ? {...chosen, ...kept, guess: kept.label} : null;
  }
}

function show() {
  showChips($('chips'), state.labels, hue, answer, openRename);
  showChips($('grid-chips'), state.labels, hue, tag);
  $('label-names').replaceChildren(...state.labels.filter(label => !label.is_background).map(label => make('option', {value: label.name})));
  showMoment(chosen, actions(), hint());
  showQuality(state);
  $('undo').disabled = !state.can_undo;
  $('redo').disabled = !state.can_redo;
  timeline.setMarks(marks, chosen && chosen.video === video?.id ? chosen : null);
  const {start_s, end_s} = marks, at = time_s => time_s === undefined ? '...' : clock(time_s);
  $('marks-note').textContent = start_s === undefined && end_s === undefined ? 'Drag on the timeline to mark a part' : `Marked ${at(start_s)} to ${at(end_s)}`;
  if (!data) return;
  const isChosen = kind => item => chosen?.kind === kind && chosen.start_s === item.start_s && chosen.video === (item.video ?? video.id);
  const doubtful = new Set(data.doubtful);
  showList($('suggested'), data.suggestions, isChosen('suggestion'), hue, describeSuggestion, item => choose('suggestion', item), noSuggestions());
  showList($('labelled'), data.segments, isChosen('segment'), hue, describeSegment(doubtful), item => choose('segment', item), 'Nothing in this video so far.');
  showList($('doubtful'), doubts, isChosen('doubt'), hue, describeDoubt(nameOf), item => choose('doubt', item), 'Nothing so far.');
}

function noSuggestions() {
  if (video?.status === 'ready') return 'None. Label a few moments, and the model will suggest more.';
  return video?.status === 'failed' ? `This video cannot be read: ${video.reason}` : 'This video is still being looked at. You can label it meanwhile.';
}

function hint() {
  if (!state.videos.length) return {title: 'Loading', words: ''};
  if (!state.num_segments) return {title: 'Start here', words: 'Find a moment of your first action: In at its start, Out at its end, then type its name. Or ask for the next moment.'};
  return {title: 'What next?', words: 'Ask for the next moment: the one whose answer teaches the model most. Or mark one yourself.'};
}

/* --- what is chosen --- */

async function choose(kind, item) {
  const id = item.video ?? video.id;
  if (id !== video.id) await trying(() => open(id, item.start_s));
  marks = {};
  const guess = {moment: item.guess, suggestion: item.label, segment: item.label, doubt: item.model_label}[kind];
  chosen = {...item, id: kind === 'doubt' ? item.segment : item.id, kind, guess: guess ?? null, video: id, words: item.words ?? wordsOf(kind, item)};
  player.repeat(item.start_s, item.end_s, !isStill);
  show();
}

function wordsOf(kind, item) {
  if (kind !== 'doubt') return '';
  if (item.kind === 'unknown') return 'Unlike everything that is labelled so far.';
  return item.kind === 'disagreement' ? `Labelled ${named(item.label)} here, and otherwise by somebody else.` : `Labelled ${named(item.label)}; the other labels say otherwise.`;
}

function setMarks(found) {
  marks = found;
  const {start_s, end_s} = marks;
  if (start_s !== undefined && end_s !== undefined && chosen?.kind !== 'suggestion' && chosen?.kind !== 'segment') {
    chosen = {kind: 'marks', start_s, end_s, video: video.id, guess: lastLabel, words: 'Choose what it shows.'};
    if (lastLabel === null) chosen.guess = null;
  }
  show();
}

function mark(side) {
  const time_s = player.time_s, found = {...marks, [side]: time_s};
  if (found.start_s !== undefined && found.end_s !== undefined && found.end_s - found.start_s < LEAST_S) {
    delete found[side === 'start_s' ? 'end_s' : 'start_s']; // the newer mark counts
  }
  player.loop = null;
  if (chosen?.kind === 'marks') chosen = null;
  setMarks(found);
  say(`${side === 'start_s' ? 'In' : 'Out'} at ${clock(time_s)}`);
}

/* Return the part that the next answer is about: the marks, else what is chosen, with a mark in place of its edge. */
function span() {
  const {start_s, end_s} = marks;
  if (start_s !== undefined && end_s !== undefined) return {start_s, end_s};
  if (chosen) {
    const found = {start_s: start_s ?? chosen.start_s, end_s: end_s ?? chosen.end_s};
    if (found.end_s - found.start_s >= LEAST_S) return found;
  }
  if (start_s !== undefined && player.time_s - start_s >= LEAST_S) return {start_s, end_s: player.time_s};
  return null;
}

const isMarked = () => marks.start_s !== undefined && marks.end_s !== undefined;

/* --- answers --- */

function actions() {
  const next = [chosen?.kind === 'moment' ? 'Skip' : 'Next moment', 'N', nextMoment, !chosen];
  if (!chosen) return [next];
  const accept = chosen.guess !== null && chosen.guess !== undefined ? [[`${chosen.kind === 'marks' ? 'Again' : chosen.kind === 'doubt' ? 'Change to' : 'Accept'} ${named(chosen.guess)}`, 'Enter', accept_, true]] : [];
  const trim = marks.start_s !== undefined || marks.end_s !== undefined ? [['Trim to the marks', 'T', trim_, false]] : [];
  switch (chosen.kind) {
    case 'segment': return [...trim, ['Delete', 'Delete', remove, false], next];
    case 'marks': return [...accept, ['Clear', 'Escape', clear, false]];
    case 'doubt': return [...accept, ...(chosen.id ? [['Keep it', 'K', clear, false], ['Delete', 'Delete', remove, false]] : []), next].filter(([words]) => words !== 'Keep it');
    default: return [...accept, ['Refuse', 'X', refuse, false], ...trim, next];
  }
}

const body = (values = {}) => ({annotator: $('annotator').value.trim(), ...values});

/* Label the chosen part. A segment that is chosen gets the new label; grid tiles are tagged. */
async function answer(label) {
  if (!$('grid').hidden) return tag(label);
  const part = span();
  const isChange = chosen?.id && ['segment', 'doubt'].includes(chosen.kind) && chosen.kind !== 'unknown' && !isMarked();
  if (!isChange && !part) { say('Mark a part first: In at its start, Out at its end. Or ask for the next moment.'); return; }
  const wasMoment = chosen?.kind === 'moment' && !isMarked(), id = video.id, {id: segment} = chosen ?? {};
  lastLabel = label;
  say(`${named(label)}, ${clock((part ?? chosen).start_s)} to ${clock((part ?? chosen).end_s)}`);
  await changed(() => isChange
    ? change('PATCH', `api/segments/${encodeURIComponent(segment)}`, body({label}))
    : change('POST', 'api/segments', body({video: id, label, ...rounded(part)})), wasMoment);
}

const rounded = ({start_s, end_s}) => ({start_s: Math.round(1000 * start_s) / 1000, end_s: Math.round(1000 * end_s) / 1000});

function accept_() { if (chosen && chosen.guess !== null && chosen.guess !== undefined) answer(chosen.guess); }

async function refuse() {
  if (!chosen || !['moment', 'suggestion'].includes(chosen.kind)) return;
  const {start_s, end_s, guess, kind} = chosen;
  say(`Not ${named(guess)}`);
  await changed(() => change('POST', 'api/refuse', body({video: video.id, label: guess ?? '', ...rounded({start_s, end_s})})), kind === 'moment');
}

async function trim_() {
  const {start_s, end_s} = marks;
  if (!chosen || (start_s === undefined && end_s === undefined)) { say('Set In or Out first, then trim.'); return; }
  const part = {start_s: start_s ?? chosen.start_s, end_s: end_s ?? chosen.end_s};
  if (part.end_s - part.start_s < LEAST_S) { say('In must come before Out.'); return; }
  if (chosen.kind === 'segment') {
    const {id} = chosen;
    marks = {};
    await changed(() => change('PATCH', `api/segments/${encodeURIComponent(id)}`, body(rounded(part))), false, true);
  } else {
    chosen = {...chosen, ...part};
    marks = {};
    player.repeat(part.start_s, part.end_s, !isStill);
    show();
  }
  say(`Trimmed to ${clock(part.start_s)} to ${clock(part.end_s)}`);
}

async function remove() {
  if (!chosen?.id || !['segment', 'doubt'].includes(chosen.kind)) return;
  const {id, label} = chosen;
  say(`Deleted ${named(label)}`);
  await changed(() => change('DELETE', `api/segments/${encodeURIComponent(id)}?annotator=${encodeURIComponent($('annotator').value.trim())}`), false);
}

/* Send a change, then show what came of it. What was chosen is done with, unless it is kept. */
async function changed(work, isNext, isKept = false) {
  if (!isKept) { chosen = null; marks = {}; player.loop = null; player.pause(); }
  const sent = trying(work);
  show();
  if (await sent === null) return;
  await trying(() => refresh(true));
  if (isNext && $('go-on').checked) await nextMoment();
}

async function nextMoment() {
  if (isAsking) return;
  isAsking = true;
  const after = chosen?.kind === 'moment' ? chosen.id : '';
  const found = await trying(() => get(`api/next?after=${encodeURIComponent(after)}`));
  isAsking = false;
  if (!found) return;
  if (!found.moment) { say('There is no moment to ask about: the videos are still being looked at, or everything is labelled.'); return; }
  await choose('moment', found.moment);
  say(`${found.moment.words} ${clock(found.moment.start_s)} in ${nameOf(found.moment.video)}. The model says ${named(found.moment.guess)}.`);
}

function clear() { chosen = null; marks = {}; player.loop = null; show(); }

async function undo(what) {
  const found = await trying(() => post(`api/${what}`, body()));
  if (!found) return;
  say(`${what === 'undo' ? 'Undone' : 'Done again'}: ${found.words}`);
  await trying(() => refresh(true));
  if (!$('grid').hidden) await trying(() => grid.load());
}

/* --- grid, renaming, model --- */

async function toggleGrid() {
  const isShown = $('grid').hidden;
  $('grid').hidden = !isShown;
  $('work').hidden = $('lists').hidden = isShown;
  if (!isShown) { timeline.redraw(); return; }
  player.pause();
  $('grid-title').focus();
  await trying(() => grid.load());
}

async function tag(label) {
  const moments = grid.moments;
  if (!moments.length) { say('Choose tiles first.'); $('grid-note').textContent = 'Choose tiles first: by click, Shift-click or Space.'; return; }
  const found = await trying(() => change('POST', 'api/tag', body({moments, label})));
  if (!found) return;
  await trying(() => refresh(true));
  await trying(() => grid.load());
  const words = `${found.tagged} labelled ${named(label)}. U takes it back.`;
  say(words);
  $('grid-note').textContent = words;
}

function openRename() {
  $('rename-old').replaceChildren(...state.labels.filter(label => !label.is_background).map(label => make('option', {value: label.name, text: label.name})));
  $('rename').showModal();
}

async function write() {
  if (isWriting) { $('written').showModal(); return; }
  isWriting = true;
  $('written-title').textContent = 'Writing the model';
  $('written-body').replaceChildren(make('p', {text: 'The model is taught from all labels, and measured with parts left out. This takes up to a minute.'}), make('progress', {'aria-label': 'Writing'}));
  $('written').showModal();
  try {
    const found = await post('api/model');
    const folder = /[^\w./-]/.test(found.folder) ? `'${found.folder.replaceAll("'", "'\\''")}'` : found.folder;
    $('written-title').textContent = 'Model written';
    $('written-body').replaceChildren(
      make('p', {text: `${found.figures} (${found.seconds.toFixed(1)} s)`}), make('p', {}, 'It lies in ', make('code', {text: found.folder})),
      make('p', {text: 'Use it:'}),
      ...COMMANDS.map(verb => commandOf(`fewframes ${verb} ${{stream: '0', serve: ''}[verb] ?? 'VIDEO'} --model ${folder}`.replace('  ', ' '))));
  } catch (error) {
    $('written-title').textContent = 'No model yet';
    $('written-body').replaceChildren(make('p', {class: 'problem', text: error.message}));
  }
  isWriting = false;
}

function commandOf(text) {
  const copy = make('button', {type: 'button', class: 'quiet small', text: 'Copy', 'aria-label': `Copy ${text}`}), code = make('code', {text});
  copy.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = 'Copied';
    } catch { // pages that do not come over HTTPS, or from this machine, have no clipboard
      getSelection().selectAllChildren(code);
      copy.textContent = 'Selected';
    }
  });
  return make('p', {class: 'command'}, code, copy);
}

/* --- keys --- */

function neighbour(direction) {
  if (!data) return;
  const items = [...data.segments.map(item => ['segment', item]), ...data.suggestions.map(item => ['suggestion', item])].sort((a, b) => a[1].start_s - b[1].start_s);
  const at_s = chosen?.start_s ?? player.time_s, isAfter = ([, item]) => direction > 0 ? item.start_s > at_s + .001 : item.start_s < at_s - .001;
  const found = direction > 0 ? items.find(isAfter) : items.findLast(isAfter);
  if (found) choose(...found);
}

const KEYS = [
  ['Space, K', 'play or pause', [' ', 'k'], () => player.toggle()],
  ['J, L', 'back or on one second; with Shift ten', ['j', 'l'], event => player.seek(player.time_s + (event.key.toLowerCase() === 'l' ? 1 : -1) * (event.shiftKey ? 10 : 1))],
  ['Left, Right', 'one frame; with Shift one second', ['arrowleft', 'arrowright'], event => { const side = event.key === 'ArrowRight' ? 1 : -1; if (event.shiftKey) player.seek(player.time_s + side); else player.step(side); }],
  ['Up, Down', 'the suggestion or label before or after', ['arrowup', 'arrowdown'], event => neighbour(event.key === 'ArrowDown' ? 1 : -1)],
  ['Home, End', 'start or end of the video', ['home', 'end'], event => player.seek(event.key === 'Home' ? 0 : player.duration_s - .04)],
  ['I, O', 'mark in, mark out', ['i', 'o'], event => mark(event.key.toLowerCase() === 'i' ? 'start_s' : 'end_s')],
  ['1 to 9, Q W E R Y A S F H Z V', 'this label, for what is chosen or marked'],
  ['0', 'it shows none of the actions'],
  ['C', 'type the name of an action', ['c'], () => $('new-label').focus()],
  ['Enter', 'accept the suggestion', ['enter'], accept_],
  ['X', 'refuse the suggestion', ['x'], refuse],
  ['T', 'trim what is chosen to the marks', ['t'], trim_],
  ['N', 'next moment: the one that teaches most', ['n'], nextMoment],
  ['Delete', 'delete the chosen label', ['delete', 'backspace'], remove],
  ['U, Ctrl-Z', 'undo', ['u'], event => undo(event.shiftKey ? 'redo' : 'undo')],
  ['Shift-U, Ctrl-Y', 'redo'],
  ['G', 'grid: many at once, and back', ['g'], toggleGrid],
  ['+, -', 'show less or more of the timeline', ['+', '=', '-'], event => timeline.zoom(event.key === '-' ? 1.5 : 1 / 1.5)],
  ['M', 'sound on or off', ['m'], () => { player.video.muted = !player.video.muted; say(player.video.muted ? 'Sound off' : 'Sound on'); }],
  ['Escape', 'choose nothing', ['escape'], () => { if ($('grid').hidden) clear(); else toggleGrid(); }],
  ['?', 'these keys', ['?'], () => $('help').showModal()],
];
const IN_GRID = new Set(['g', 'u', '?', 'escape', 'c']);
const RUN = new Map(KEYS.flatMap(([,, keys = [], run]) => keys.map(key => [key, run])));
$('keys').replaceChildren(...KEYS.map(([keys, words]) => make('tr', {}, make('th', {scope: 'row'}, ...keys.split(', ').flatMap((key, index) => [...(index ? [' '] : []), make('kbd', {text: key})])), make('td', {text: words}))));

document.addEventListener('keydown', event => {
  const key = event.key.toLowerCase(), focused = document.activeElement;
  if (document.querySelector('dialog[open]')) return;
  if ((event.ctrlKey || event.metaKey) && !focused.matches('input[type=text]') && (key === 'z' || key === 'y')) {
    event.preventDefault();
    undo(key === 'y' || event.shiftKey ? 'redo' : 'undo');
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (focused.matches('input, select, textarea')) { if (key === 'escape') focused.blur(); return; }
  if (!$('single-keys').checked && !['escape', 'arrowleft', 'arrowright'].includes(key)) return;
  if (focused.matches('button, a, summary') && (key === 'enter' || key === ' ')) return; // that presses it
  const isGrid = !$('grid').hidden, label = keysOf(state.labels).get(key);
  if (label !== undefined && !event.shiftKey) { event.preventDefault(); answer(label); return; }
  const run = RUN.get(key);
  if (!run || (isGrid && !IN_GRID.has(key))) return;
  event.preventDefault();
  run(event);
});

/* Buttons that were pressed with the mouse let go of the focus, so that Space and Enter do what the help says. */
document.addEventListener('click', event => { if (event.detail && event.target.closest('#transport button, .chip, #moment-actions button, .row, #tools button')) document.activeElement.blur(); });

for (const [id, run] of [['back', () => player.seek(player.time_s - 1)], ['forward', () => player.seek(player.time_s + 1)], ['play', () => player.toggle()],
  ['mark-in', () => mark('start_s')], ['mark-out', () => mark('end_s')], ['next', nextMoment], ['undo', () => undo('undo')], ['redo', () => undo('redo')],
  ['open-grid', toggleGrid], ['close-grid', toggleGrid], ['open-help', () => $('help').showModal()], ['write', write],
  ['zoom-in', () => timeline.zoom(1 / 1.5)], ['zoom-out', () => timeline.zoom(1.5)]]) $(id).addEventListener('click', run);
for (const button of document.querySelectorAll('[data-close]')) button.addEventListener('click', () => button.closest('dialog').close());
$('videos').addEventListener('change', event => { event.target.blur(); trying(() => open(event.target.value)); });
$('new-form').addEventListener('submit', event => {
  event.preventDefault();
  const name = $('new-label').value.trim();
  if (!name) return;
  $('new-label').value = '';
  $('new-label').blur();
  answer(name);
});
$('rename-form').addEventListener('submit', async event => {
  event.preventDefault();
  const old = $('rename-old').value, name = $('rename-new').value.trim();
  if (!name) return;
  $('rename').close();
  $('rename-new').value = '';
  if (await trying(() => change('POST', 'api/labels/rename', body({old, new: name})))) say(`${old} is now ${name}`);
  await trying(() => refresh(true));
});
$('annotator').addEventListener('change', () => localStorage.setItem('fewframes-annotator', $('annotator').value.trim()));
for (const id of ['single-keys', 'go-on']) {
  $(id).checked = localStorage.getItem(`fewframes-${id}`) !== 'off';
  $(id).addEventListener('change', () => localStorage.setItem(`fewframes-${id}`, $(id).checked ? 'on' : 'off'));
}
addEventListener('resize', () => timeline.redraw());

onConnection(({isOnline, num_waiting}) => {
  const words = isOnline ? (num_waiting ? 'Saving' : 'Saved') : num_waiting ? `Offline, ${num_waiting} to send` : 'Offline';
  $('saved').className = isOnline ? (num_waiting ? 'busy' : 'good') : 'bad';
  $('saved').querySelector('b').textContent = words;
  if (!isOnline) fail(new Error('The server does not answer. What you do is kept here and sent when it is back.'));
});

async function poll() {
  const was = connection();
  try {
    await refresh(!was.isOnline);
    if (!was.isOnline) { fail(); player.retry(); }
    if (connection().num_waiting) { await send(); await refresh(true); }
  } catch (error) {
    if (!error.isOffline) fail(error);
  }
  setTimeout(poll, document.hidden ? 5 * POLL_MS : POLL_MS);
}

(async () => {
  about = await trying(() => get('api/about')) ?? {};
  $('annotator').value = localStorage.getItem('fewframes-annotator') || about.annotator || '';
  document.title = `${about.project?.split(/[\\/]/).at(-1) ?? ''} - fewframes label`;
  poll();
})();
