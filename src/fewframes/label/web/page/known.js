/* What the page knows: the answers of the server, what is chosen and marked, and the parts that show it. */
import {$, clock, make} from './dom.js';
import {get} from './api.js';
import {Grid} from './grid.js';
import {describeDoubt, describeSegment, describeSuggestion, showChips, showList, showMoment, showQuality} from './panel.js';
import {Player} from './player.js';
import {Timeline} from './timeline.js';

const MOST_DOUBTS = 20;

export const known = {
  about: {},
  state: {videos: [], labels: [], curve: [], revision: -1, num_segments: 0},
  video: null, // of `state.videos`
  timeline: null, // of that video
  doubts: [],
  chosen: null, // what the next answer is about: {kind, id, video, start_s, end_s, guess, score, words}
  marks: {}, // {start_s, end_s}, each if it is set
  lastLabel: null,
};
/* What main.js does when something is chosen or pressed. */
export const on = {};

export const player = new Player((time_s, isPaused) => {
  timeline.setTime(time_s);
  $('clock').textContent = `${clock(time_s)} / ${clock(player.duration_s)}`;
  if (isPaused !== ($('play').textContent === 'Play')) {
    $('play').textContent = isPaused ? 'Play' : 'Pause';
    $('play').setAttribute('aria-label', isPaused ? 'Play' : 'Pause');
  }
});
export const timeline = new Timeline({
  seek: time_s => player.seek(time_s),
  mark: (start_s, end_s, time_s) => on.drag(start_s, end_s, time_s),
  pick: (kind, item) => on.choose(kind, item),
});
export const nameOf = id => known.state.videos.find(info => info.id === id)?.name ?? id;
export const grid = new Grid(nameOf);
export const isGrid = () => !$('grid').hidden;
/* Show words, and have them read out. */
export const say = words => { $('status').textContent = words; $('announced').textContent = ''; };
/* Have words read out that are shown elsewhere. */
export const announce = words => { $('announced').textContent = words; $('status').textContent = ''; };
export const fail = error => { $('error').textContent = error ? error.message : ''; };

/* Run something that asks the server, and show its error. Return null if there was one. */
export async function trying(work) {
  try {
    const result = await work();
    fail();
    return result;
  } catch (error) {
    if (!error.isOffline) fail(error);
    return null;
  }
}

/* Ask how the labelling stands, and show it if anything changed. */
export async function refresh(isForced = false) {
  const {state} = known, found = await get('api/state');
  if (!isForced && found.revision === state.revision && JSON.stringify(found.videos) === JSON.stringify(state.videos)) return;
  known.state = found;
  showVideos();
  const [answer] = await Promise.all([
    found.num_segments ? get(`api/doubtful?num=${MOST_DOUBTS}`) : {doubts: []},
    known.video ? loadTimeline(false) : openFirst(),
  ]);
  known.doubts = answer.doubts;
  show();
}

function showVideos() {
  if (document.activeElement === $('videos')) return; // it may be open
  const words = info => ({failed: `cannot be read: ${info.reason}`, embedding: 'being looked at', waiting: 'waiting'})[info.status] ?? (info.num_segments ? `${info.num_segments} labelled` : '');
  $('videos').replaceChildren(...known.state.videos.map(info => {
    const option = make('option', {value: info.id, text: [info.name, words(info)].filter(Boolean).join(' \u00b7 ')});
    option.disabled = info.status === 'failed';
    return option;
  }));
  if (known.video) $('videos').value = known.video.id;
}

async function openFirst() {
  const {videos} = known.state, first = videos.find(info => info.status === 'ready') ?? videos.find(info => info.status !== 'failed');
  if (first) await open(first.id);
}

/* Show a video from a time on. */
export async function open(id, time_s = 0) {
  const info = known.state.videos.find(found => found.id === id);
  if (!info) return;
  Object.assign(known, {video: info, chosen: null, marks: {}});
  $('videos').value = id;
  player.load(info, time_s);
  await loadTimeline(true);
  show();
}

async function loadTimeline(isNew) {
  const {id} = known.video, found = await get(`api/videos/${encodeURIComponent(id)}/timeline`);
  if (id !== known.video.id) return; // another video was opened meanwhile
  known.timeline = found;
  known.video = known.state.videos.find(info => info.id === id) ?? known.video;
  player.info = {...known.video, duration_s: found.duration_s};
  timeline.show(found, isNew);
  if (known.chosen?.kind !== 'segment') return;
  const kept = found.segments.find(segment => segment.id === known.chosen.id);
  known.chosen = kept ? {...known.chosen, ...kept, guess: kept.label} : null;
}

/* Show all that is known. */
export function show() {
  const {state, chosen, marks, video, timeline: data, doubts} = known;
  const names = state.labels.filter(label => !label.is_background).map(label => label.name);
  showChips($('chips'), state.labels, on.answer);
  showChips($('grid-chips'), state.labels, on.answer);
  $('open-rename').hidden = !names.length;
  $('label-names').replaceChildren(...[...new Set([...names, ...Object.keys(data?.scores ?? {})])].filter(Boolean).map(value => make('option', {value})));
  showMoment(chosen, on.actions(), hint());
  showQuality(state);
  $('undo').disabled = !state.can_undo;
  $('redo').disabled = !state.can_redo;
  timeline.setMarks(marks, chosen && chosen.video === video?.id ? chosen : null);
  const {start_s, end_s} = marks, at = time_s => time_s === undefined ? '\u2026' : clock(time_s);
  $('marks-note').textContent = start_s === undefined && end_s === undefined ? 'Drag on the timeline to mark a part' : `Marked ${at(start_s)} to ${at(end_s)}`;
  if (!data) return;
  const isChosen = kind => item => chosen?.kind === kind && chosen.start_s === item.start_s && chosen.video === (item.video ?? video.id);
  const list = (id, kind, items, describe, empty) => showList($(id), items, isChosen(kind), describe, item => on.choose(kind, item), empty);
  list('suggested', 'suggestion', data.suggestions, describeSuggestion, noSuggestions());
  list('labelled', 'segment', data.segments, describeSegment(new Set(data.doubtful)), 'Nothing in this video so far.');
  list('doubtful', 'doubt', doubts, describeDoubt(nameOf), 'Nothing so far.');
}

function noSuggestions() {
  const {video} = known;
  if (video?.status === 'ready') return 'None. Label a few moments, and the model will suggest more.';
  return video?.status === 'failed' ? `This video cannot be read: ${video.reason}` : 'This video is still being looked at. You can label it meanwhile.';
}

function hint() {
  const {videos, num_segments} = known.state;
  if (!videos.length) return {title: 'Loading', words: ''};
  if (!num_segments) return {title: 'Start here', words: 'Find a moment of your first action: In at its start, Out at its end, then type its name. Or ask for the next moment.'};
  return {title: 'What next?', words: 'Ask for the next moment: the one whose answer teaches the model most. Or mark one yourself.'};
}
