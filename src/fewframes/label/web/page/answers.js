/* What can be done with a part of a video: choose, mark, label, refuse, trim, delete. */
import {$, clock} from './dom.js';
import {change, get, post} from './api.js';
import {announce, grid, isGrid, known, nameOf, on, open, player, refresh, say, show, trying} from './known.js';
import {isNone, named} from './timeline.js';

const LEAST_S = .1, LABELLED = 'segment ';
const isStill = matchMedia('(prefers-reduced-motion: reduce)').matches;
const rounded = ({start_s, end_s}) => ({start_s: Math.round(1000 * start_s) / 1000, end_s: Math.round(1000 * end_s) / 1000});
const annotator = () => $('annotator').value.trim();
const segmentOf = id => `api/segments/${encodeURIComponent(id)}`;
const isMarked = () => known.marks.start_s !== undefined && known.marks.end_s !== undefined;
const hasGuess = () => known.chosen?.guess !== null && known.chosen?.guess !== undefined;
const canRefuse = () => ['moment', 'suggestion'].includes(known.chosen?.kind) && !isNone(known.chosen.guess);
/* True if what is chosen is in the journal, so that an answer changes it. */
const isWritten = () => Boolean(known.chosen?.id) && ['segment', 'doubt'].includes(known.chosen.kind);

export async function choose(kind, item) {
  const id = item.video ?? known.video.id;
  if (id !== known.video.id) await trying(() => open(id, item.start_s));
  const guess = {moment: item.guess || null, suggestion: item.label, segment: item.label, doubt: item.kind === 'unknown' ? null : item.model_label}[kind];
  known.marks = {};
  known.chosen = {...item, kind, video: id, guess: guess ?? null, id: kind === 'doubt' ? item.segment : item.id, words: item.words ?? wordsOf(kind, item)};
  player.repeat(item.start_s, item.end_s, !isStill);
  show();
}

function wordsOf(kind, item) {
  if (kind !== 'doubt') return '';
  if (item.kind === 'unknown') return 'Unlike everything that is labelled so far.';
  return `Labelled ${named(item.label)} here. ${item.kind === 'disagreement' ? 'Somebody else answered otherwise.' : 'The other labels say otherwise.'}`;
}

/* Return the buttons for what is chosen: [words, key, function, is it the main one]. */
export function actions() {
  const {chosen, marks} = known, next = [chosen?.moment ? 'Skip' : 'Next moment', 'N', nextMoment, !chosen];
  if (!chosen) return [next];
  const first = {marks: 'Again', doubt: 'Change to', segment: null}[chosen.kind] ?? (chosen.kind === 'segment' ? null : 'Accept');
  return [
    ...(first && hasGuess() ? [[`${first} ${named(chosen.guess)}`, 'Enter', accept, true]] : []),
    ...(canRefuse() ? [['Refuse', 'X', refuse, false]] : []),
    ...(chosen.kind !== 'marks' && Object.keys(marks).length ? [['Trim', 'T', trim, false]] : []),
    ...(isWritten() ? [['Delete', 'Delete', remove, false]] : []),
    chosen.kind === 'marks' ? ['Clear', 'Escape', clear, false] : next,
  ];
}

/* --- marks --- */

function setMarks(marks) {
  known.marks = marks;
  if (isMarked() && !['suggestion', 'segment'].includes(known.chosen?.kind)) {
    known.chosen = {kind: 'marks', ...marks, video: known.video.id, guess: known.lastLabel, words: 'What does it show? Press the key of a label, or type a new name.'};
  }
  show();
}

export function drag(start_s, end_s, time_s) {
  player.pause();
  player.seek(time_s);
  setMarks({start_s, end_s});
}

export function mark(side) {
  const time_s = player.time_s, marks = {...known.marks, [side]: time_s};
  if (marks.start_s !== undefined && marks.end_s !== undefined && marks.end_s - marks.start_s < LEAST_S) {
    delete marks[side === 'start_s' ? 'end_s' : 'start_s']; // the newer mark counts
  }
  player.loop = null;
  if (known.chosen?.kind === 'marks') known.chosen = null;
  setMarks(marks);
  say(`${side === 'start_s' ? 'In' : 'Out'} at ${clock(time_s)}`);
}

/* Return the part that an answer is about: the marks, else what is chosen with a mark in place of its edge, else from In to here. */
function part() {
  const {marks: {start_s, end_s}, chosen} = known;
  if (isMarked()) return {start_s, end_s};
  const trimmed = chosen && {start_s: start_s ?? chosen.start_s, end_s: end_s ?? chosen.end_s};
  if (trimmed && trimmed.end_s - trimmed.start_s >= LEAST_S) return trimmed;
  return start_s !== undefined && player.time_s - start_s >= LEAST_S ? {start_s, end_s: player.time_s} : null;
}

/* --- answers --- */

/* Send a change, then show what came of it. What was chosen is done with. */
async function changed(method, path, values, isNext = false) {
  Object.assign(known, {chosen: null, marks: {}});
  player.loop = null;
  player.pause();
  show();
  if (await trying(() => change(method, path, {annotator: annotator(), ...values})) === null) return;
  await Promise.all([trying(() => refresh(true)), isNext && $('go-on').checked ? nextMoment() : null]);
}

/* Label what is marked or chosen, or the chosen tiles of the grid. */
export async function answer(label) {
  if (isGrid()) { await tag(label); return; }
  const {chosen, video} = known, found = part();
  if (!found) { say('Mark a part first: In at its start, Out at its end. Or ask for the next moment.'); return; }
  known.lastLabel = label;
  say(`${named(label)}, ${clock(found.start_s)} to ${clock(found.end_s)}`);
  if (isWritten() && !isMarked()) await changed('PATCH', segmentOf(chosen.id), {label}, Boolean(chosen.moment));
  else await changed('POST', 'api/segments', {video: video.id, label, ...rounded(found)}, Boolean(chosen?.moment) && !isMarked());
}

export function accept() { if (hasGuess() && known.chosen.kind !== 'segment') answer(known.chosen.guess); }

export async function refuse() {
  const {chosen, video} = known;
  if (!canRefuse()) return;
  say(`Not ${named(chosen.guess)}`);
  await changed('POST', 'api/refuse', {video: video.id, label: chosen.guess, ...rounded(part() ?? chosen)}, Boolean(chosen.moment));
}

export async function trim() {
  const {chosen} = known, found = part();
  if (!chosen || !Object.keys(known.marks).length) { say('Choose something, set In or Out, then trim.'); return; }
  if (!found) { say('In must come before Out.'); return; }
  say(`Trimmed to ${clock(found.start_s)} to ${clock(found.end_s)}`);
  if (isWritten()) { await changed('PATCH', segmentOf(chosen.id), rounded(found)); return; }
  known.chosen = {...chosen, ...found};
  known.marks = {};
  player.repeat(found.start_s, found.end_s, !isStill);
  show();
}

export async function remove() {
  if (!isWritten()) return;
  const {id, label} = known.chosen;
  say(`Deleted ${named(label)}`);
  await changed('DELETE', `${segmentOf(id)}?annotator=${encodeURIComponent(annotator())}`);
}

export function clear() {
  Object.assign(known, {chosen: null, marks: {}});
  player.loop = null;
  show();
}

let isAsking = false;
export async function nextMoment() {
  if (isAsking) return;
  isAsking = true;
  const after = known.chosen?.moment ?? '';
  const found = await trying(() => get(`api/next?after=${encodeURIComponent(after)}`));
  isAsking = false;
  if (!found) return;
  const {moment} = found;
  if (!moment) { say('There is no moment to ask about: the videos are still being looked at, or everything is labelled.'); return; }
  const isLabelled = moment.id.startsWith(LABELLED); // its label is the one to look at again
  await (isLabelled ? choose('doubt', {...moment, kind: 'wrong', segment: moment.id.slice(LABELLED.length), model_label: moment.guess, moment: moment.id}) : choose('moment', {...moment, moment: moment.id}));
  announce(`${moment.words}: ${clock(moment.start_s)} to ${clock(moment.end_s)} in ${nameOf(moment.video)}.${moment.guess ? ` The model says ${named(moment.guess)}.` : ''}`);
}

/* Go to the suggestion or label before (-1) or after (1) what is chosen. */
export function neighbour(direction) {
  const {timeline, chosen} = known;
  if (!timeline) return;
  const items = [...timeline.segments.map(item => ['segment', item]), ...timeline.suggestions.map(item => ['suggestion', item])].sort((a, b) => a[1].start_s - b[1].start_s);
  const at_s = chosen?.start_s ?? player.time_s, isBeyond = ([, item]) => direction * (item.start_s - at_s) > .001;
  const found = direction > 0 ? items.find(isBeyond) : items.findLast(isBeyond);
  if (found) choose(...found);
}

/* Take the last change back, or do it again. */
export async function undo(what) {
  const found = await trying(() => post(`api/${what}`, {annotator: annotator()}));
  if (!found) return;
  say(found.words[0].toUpperCase() + found.words.slice(1));
  await trying(() => refresh(true));
  if (isGrid()) await trying(() => grid.load());
}

export async function rename(old, name) {
  if (await trying(() => change('POST', 'api/labels/rename', {annotator: annotator(), old, new: name}))) say(`${old} is now ${name}`);
  await trying(() => refresh(true));
}

/* --- the grid --- */

export async function toggleGrid() {
  const isShown = !isGrid();
  $('grid').hidden = !isShown;
  $('work').hidden = isShown;
  if (!isShown) { show(); return; }
  player.pause();
  $('grid-title').focus();
  await trying(() => grid.load());
}

async function tag(label) {
  const {moments} = grid;
  if (!moments.length) { grid.note('Choose tiles first: by click, Shift-click or Space.'); return; }
  const found = await trying(() => change('POST', 'api/tag', {annotator: annotator(), moments, label}));
  if (!found) return;
  await trying(() => refresh(true));
  await trying(() => grid.load());
  grid.note(`${found.tagged} labelled ${named(label)}. U takes it back.`);
}

Object.assign(on, {choose, drag, answer, actions});
