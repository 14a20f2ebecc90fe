/* The keys of the page, and the help that lists them. */
import {$, make} from './dom.js';
import {accept, answer, clear, mark, neighbour, nextMoment, refuse, remove, toggleGrid, trim, undo} from './answers.js';
import {isGrid, known, player, say, timeline} from './known.js';
import {keysOf} from './panel.js';

const seek = (event, by_s) => player.seek(player.time_s + by_s * (event.shiftKey ? 10 : 1));

/* [keys in words, what they do, keys, function]. Keys without a function are listed only. */
const KEYS = [
  ['Space, K', 'play or pause', [' ', 'k'], () => player.toggle()],
  ['J, L', 'back or on one second; with Shift ten', ['j', 'l'], event => seek(event, event.key.toLowerCase() === 'l' ? 1 : -1)],
  ['Left, Right', 'one frame; with Shift one second', ['arrowleft', 'arrowright'], event => {
    const side = event.key === 'ArrowRight' ? 1 : -1;
    if (event.shiftKey) player.seek(player.time_s + side); else player.step(side);
  }],
  ['Up, Down', 'the suggestion or label before or after', ['arrowup', 'arrowdown'], event => neighbour(event.key === 'ArrowDown' ? 1 : -1)],
  ['Home, End', 'start or end of the video', ['home', 'end'], event => player.seek(event.key === 'Home' ? 0 : player.duration_s)],
  ['I, O', 'mark in, mark out', ['i', 'o'], event => mark(event.key.toLowerCase() === 'i' ? 'start_s' : 'end_s')],
  ['1 \u2026 9', 'label what is marked or chosen; more labels have Q W E R Y A S F H Z V'],
  ['0', 'it shows none of the actions'],
  ['C', 'type the name of an action', ['c'], () => $(isGrid() ? 'grid-label' : 'new-label').focus()],
  ['Enter', 'accept', ['enter'], accept],
  ['X', 'refuse', ['x'], refuse],
  ['T', 'trim what is chosen to the marks', ['t'], trim],
  ['Delete', 'delete the chosen label', ['delete', 'backspace'], remove],
  ['N', 'next moment: the one that teaches most; again to skip it', ['n'], nextMoment],
  ['G', 'grid: many at once, and back', ['g'], toggleGrid],
  ['U, Ctrl-Z', 'undo', ['u'], event => undo(event.shiftKey ? 'redo' : 'undo')],
  ['Shift-U, Ctrl-Y', 'redo'],
  ['+, -', 'show less or more of the timeline', ['+', '=', '-'], event => timeline.zoom(event.key === '-' ? 1.5 : 1 / 1.5)],
  ['M', 'sound on or off', ['m'], () => {
    player.video.muted = !player.video.muted;
    say(player.video.muted ? 'Sound off' : 'Sound on');
  }],
  ['Escape', 'choose nothing, or leave the grid', ['escape'], () => { if (isGrid()) toggleGrid(); else clear(); }],
  ['?', 'these keys', ['?'], () => $('help').showModal()],
];
const IN_GRID = new Set(['c', 'g', 'u', 'escape', '?']);
const ALWAYS = new Set(['escape', 'arrowleft', 'arrowright']); // keys that are no single characters
const RUN = new Map(KEYS.flatMap(([,, keys = [], run]) => keys.map(key => [key, run])));

function onKey(event) {
  const key = event.key.toLowerCase(), focused = document.activeElement, isTyping = focused.matches('input[type=text]');
  if (document.querySelector('dialog[open]')) return;
  if ((event.ctrlKey || event.metaKey) && !isTyping && (key === 'z' || key === 'y')) {
    event.preventDefault();
    undo(key === 'y' || event.shiftKey ? 'redo' : 'undo');
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (isTyping || focused.matches('select')) {
    if (key === 'escape') focused.blur();
    return;
  }
  if (!$('single-keys').checked && !ALWAYS.has(key)) return;
  if (focused.matches('button, a') && (key === 'enter' || key === ' ')) return; // that presses it
  const label = event.shiftKey ? undefined : keysOf(known.state.labels).get(key), run = RUN.get(key);
  if (label === undefined && (!run || (isGrid() && !IN_GRID.has(key)))) return;
  event.preventDefault();
  if (label !== undefined) answer(label); else run(event);
}

export function listenToKeys() {
  const named = keys => keys.split(', ').flatMap((key, index) => [...(index ? [' '] : []), make('kbd', {text: key})]);
  $('keys').replaceChildren(...KEYS.map(([keys, words]) => make('tr', {}, make('th', {scope: 'row'}, ...named(keys)), make('td', {text: words}))));
  document.addEventListener('keydown', onKey);
}
