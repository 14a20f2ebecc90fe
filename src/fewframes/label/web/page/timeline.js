/* Draw what happens when: a strip of the whole video, and below it the part around the current time with labels, suggestions and scores. */
import {$, clock, draw, make} from './dom.js';

const STEPS_S = [.2, .5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800];
const LEAST_VIEW_S = 2, MOST_TRACKS = 4, DRAG_PX = 6, WIDE_S = 60;
const hues = new Map();
/* True for the label of parts that show none of the actions. */
export const isNone = label => !label || label === 'background';
export const named = label => isNone(label) ? 'none of these' : label;

/* Return the hue of a label. It stays the same; those that were seen first are far apart. */
export function hueOf(label) {
  if (!hues.has(label)) hues.set(label, Math.round(210 + 137.5 * hues.size) % 360);
  return hues.get(label);
}

export class Timeline {
  /* `on` has functions: seek(time_s), mark(start_s, end_s), pick(kind, item). */
  constructor(on) {
    this.root = $('timeline');
    this.whole = $('overview');
    this.on = on;
    this.data = null;
    this.view = {from: 0, to: 1};
    this.time_s = 0;
    this.marks = {};
    this.selected = null;
    this._listen(this.root, time => this.timeAt(time), true);
    this._listen(this.whole, x => this.data.duration_s * this._fraction(this.whole, x), false);
  }

  /* Show the timeline of a video. */
  show(data, isNew) {
    this.data = data;
    if (isNew) this.view = {from: 0, to: Math.min(data.duration_s, WIDE_S)};
    this.root.setAttribute('aria-valuemax', data.duration_s.toFixed(1));
    this.redraw();
  }

  timeAt(x) {
    return this.view.from + (this.view.to - this.view.from) * this._fraction(this.root, x);
  }

  zoom(factor) {
    if (!this.data) return;
    const length = Math.max(Math.min(LEAST_VIEW_S, this.data.duration_s), Math.min(this.data.duration_s, (this.view.to - this.view.from) * factor));
    this._look(this.time_s - length / 2, length);
    this.redraw();
  }

  /* Show the current time. The timeline follows it. */
  setTime(time_s) {
    if (!this.data) return;
    this.time_s = Math.min(time_s, this.data.duration_s);
    const {from, to} = this.view, length = to - from;
    if (!this.isDragging && (this.time_s < from || this.time_s > to)) {
      this._look(this.time_s - length * .15, length);
      this.redraw();
    } else this._showTime();
  }

  _showTime() {
    const {time_s} = this;
    this.root.setAttribute('aria-valuenow', time_s.toFixed(1));
    this.root.setAttribute('aria-valuetext', clock(time_s));
    for (const [root, fraction] of [[this.root, this._place(time_s)], [this.whole, time_s / this.data.duration_s]]) {
      const now = root.querySelector('.now');
      if (now) now.style.left = `${100 * fraction}%`;
    }
  }

  /* Show the marks, {start_s, end_s}, and the part that the next answer is about. */
  setMarks(marks, selected) {
    this.marks = marks;
    this.selected = selected;
    if (!this.data) return; // it comes in a moment, and is shown with these then
    if (selected && (selected.start_s < this.view.from || selected.end_s > this.view.to)) {
      const length = Math.max(this.view.to - this.view.from, 1.5 * (selected.end_s - selected.start_s));
      this._look((selected.start_s + selected.end_s) / 2 - length / 2, length);
    }
    this.redraw();
  }

  redraw() {
    if (!this.data) return;
    const {from, to} = this.view, {segments, suggestions, duration_s} = this.data;
    const doubtful = new Set(this.data.doubtful);
    const isSeen = item => item.end_s > from && item.start_s < to;
    const isChosen = (kind, item) => this.selected?.kind === kind && (kind === 'segment' ? this.selected.id === item.id : this.selected.start_s === item.start_s);
    const block = (kind, item) => {
      const found = make('button', {type: 'button', class: `block ${kind}`, tabindex: '-1', 'aria-hidden': 'true',
        text: (doubtful.has(item.id) ? '? ' : '') + named(item.label)});
      found.title = `${clock(item.start_s)} to ${clock(item.end_s)}: ${named(item.label)}`;
      if (isNone(item.label)) found.classList.add('none');
      if (isChosen(kind, item)) found.classList.add('chosen');
      found.item = {kind, item};
      return this._put(found, item, hueOf(item.label));
    };
    const lane = (kind, items) => make('div', {class: 'lane'}, ...items.filter(isSeen).map(item => block(kind, item)));
    const tracks = this._tracks();
    this.root.replaceChildren(this._ruler(), lane('segment', segments), lane('suggestion', suggestions), ...tracks, ...this._shades(), make('div', {class: 'now'}));
    $('lane-names').replaceChildren(...['', 'labelled', 'suggested', ...tracks.map(track => track.textContent)].map(text => make('span', {text})));
    const isLong = to - from < .98 * duration_s;
    this.whole.hidden = !isLong;
    if (isLong) this.whole.replaceChildren(
      ...suggestions.map(item => this._put(make('i', {class: 'suggestion'}), item, hueOf(item.label), true)),
      ...segments.map(item => this._put(make('i', {class: isNone(item.label) ? 'segment none' : 'segment'}), item, hueOf(item.label), true)),
      this._put(make('div', {class: 'view'}), {start_s: from, end_s: to}, 0, true),
      make('div', {class: 'now'}));
    this._showTime();
  }

  _tracks() {
    const {times_s, scores} = this.data, {from, to} = this.view;
    let first = times_s.findIndex(time_s => time_s >= from), last = times_s.findLastIndex(time_s => time_s <= to);
    if (first < 0 || last < 0) return [];
    first = Math.max(0, first - 1);
    last = Math.min(times_s.length - 1, last + 1);
    const most = label => Math.max(...scores[label].slice(first, last + 1));
    const labels = Object.keys(scores), shown = new Set(labels.toSorted((a, b) => most(b) - most(a)).slice(0, MOST_TRACKS));
    return labels.filter(label => shown.has(label)).map(label => {
      let points = '';
      for (let index = first; index <= last; index++) points += `${(1000 * this._place(times_s[index])).toFixed(1)},${(96 - 92 * scores[label][index]).toFixed(1)} `;
      const svg = draw('svg', {viewBox: '0 0 1000 100', preserveAspectRatio: 'none'}, draw('polyline', {points}));
      const track = make('div', {class: 'lane track'}, svg, make('span', {class: 'lane-name', text: named(label)}));
      track.style.setProperty('--h', hueOf(label));
      return track;
    });
  }

  _ruler() {
    const {from, to} = this.view, step_s = STEPS_S.find(step => (to - from) / step <= Math.max(3, this.root.clientWidth / 90)) ?? 3600;
    const ticks = [];
    for (let time_s = Math.ceil(from / step_s) * step_s; time_s < to; time_s += step_s) {
      const tick = make('span', {text: step_s < 1 ? clock(time_s) : clock(time_s).replace(/\.\d$/, '')});
      tick.style.left = `${100 * this._place(time_s)}%`;
      ticks.push(tick);
    }
    return make('div', {class: 'ruler'}, ...ticks);
  }

  _shades() {
    const {start_s, end_s} = this.marks, shades = [];
    if (start_s !== undefined || end_s !== undefined) {
      const from = start_s ?? end_s, to = end_s ?? start_s;
      const shade = this._put(make('div', {class: 'marks'}), {start_s: from, end_s: to});
      if (start_s !== undefined) shade.append(make('b', {class: 'in', text: 'in'}));
      if (end_s !== undefined) shade.append(make('b', {class: 'out', text: 'out'}));
      shades.push(shade);
    } else if (this.selected) shades.push(this._put(make('div', {class: 'chosen-part'}), this.selected));
    return shades;
  }

  /* Put an element where its part of the video is. */
  _put(element, {start_s, end_s}, hue = 0, isWhole = false) {
    const place = isWhole ? time_s => time_s / this.data.duration_s : time_s => this._place(time_s);
    const left = Math.max(-.02, Math.min(1.02, place(start_s)));
    element.style.left = `${100 * left}%`;
    element.style.width = `${100 * Math.max(0, Math.min(1.02, place(end_s)) - left)}%`;
    element.style.setProperty('--h', hue);
    return element;
  }

  _place(time_s) { return (time_s - this.view.from) / (this.view.to - this.view.from); }

  _look(from, length) {
    const start = Math.max(0, Math.min(this.data.duration_s - length, from));
    this.view = {from: start, to: start + length};
  }

  _fraction(root, x) {
    const box = root.getBoundingClientRect();
    return Math.max(0, Math.min(1, (x - box.left) / box.width));
  }

  /* A click goes to that time, or chooses what lies there; dragging marks a part (on the strip of the whole video it goes through it). */
  _listen(root, timeOf, marks) {
    let start_x = null, target = null;
    root.addEventListener('pointerdown', event => {
      if (event.button || !this.data) return;
      start_x = event.clientX;
      target = event.target.closest('.block')?.item;
      root.setPointerCapture(event.pointerId);
      if (!marks) this.on.seek(timeOf(start_x));
    });
    root.addEventListener('pointermove', event => {
      if (start_x === null) return;
      if (Math.abs(event.clientX - start_x) > DRAG_PX) this.isDragging = true;
      if (!this.isDragging) return;
      if (!marks) { this.on.seek(timeOf(event.clientX)); return; }
      const [from, to] = [timeOf(start_x), timeOf(event.clientX)].sort((a, b) => a - b);
      this.on.mark(from, to, timeOf(event.clientX));
    });
    const ended = isDone => {
      if (start_x !== null && isDone && !this.isDragging && marks) {
        if (target) this.on.pick(target.kind, target.item); else this.on.seek(timeOf(start_x));
      }
      start_x = null;
      this.isDragging = false;
    };
    root.addEventListener('pointerup', () => ended(true));
    root.addEventListener('pointercancel', () => ended(false));
  }
}
