/* The events, with their clips and their marks. */
import {make} from './dom.js';
import {arrange, percent, say, send} from './api.js';

const TIME = new Intl.DateTimeFormat(undefined, {hour: '2-digit', minute: '2-digit', second: '2-digit'});
const DAY = new Intl.DateTimeFormat(undefined, {weekday: 'short', day: 'numeric', month: 'short'});
const HOLD_MS = 6000; // while somebody points or types here, nothing moves under the hand
const MARKED = {right: 'right', wrong: 'wrong', other: 'it was'};

class Card {
  constructor(values, onMarked, canMark) {
    this.id = values.id;
    this.onMarked = onMarked;
    this.media = make('div', {class: 'media'});
    this.label = make('span');
    this.score = make('small');
    this.where = make('p');
    this.when = make('p');
    this.note = make('p', {class: 'soft'});
    this.said = make('p');
    this.element = make('li', {class: 'event'}, this.media, make('div', {class: 'about'},
      make('h3', {}, this.label, this.score), this.when, this.where, this.note, this.said));
    this.buttons = {};
    if (canMark) this._addMarks();
  }

  _addMarks() {
    const button = (verdict, text) => {
      const made = this.buttons[verdict] = make('button', {type: 'button', class: `quiet ${verdict}`, text, 'aria-pressed': 'false'});
      return made;
    };
    const undo = this.undo = make('button', {type: 'button', class: 'quiet', text: 'Undo'});
    this.input = make('input', {type: 'text', list: 'labels', maxlength: '200', placeholder: 'Another action', 'aria-label': 'It was', autocomplete: 'off', spellcheck: 'false'});
    this.form = make('form', {}, this.input, make('button', {type: 'submit', text: 'Save'}));
    this.form.hidden = true;
    const marks = make('div', {class: 'marks', role: 'group', 'aria-label': 'Mark this event'},
      button('right', 'Right'), button('wrong', 'Wrong'), button('other', 'It was \u2026'), undo, this.form);
    for (const verdict of ['right', 'wrong']) this.buttons[verdict].addEventListener('click', () => this._mark(verdict));
    this.buttons.other.setAttribute('aria-expanded', 'false');
    this.buttons.other.addEventListener('click', () => this._open(this.form.hidden));
    undo.addEventListener('click', () => this._mark('none'));
    this.form.addEventListener('submit', event => {
      event.preventDefault();
      if (this.input.value.trim()) this._mark('other', this.input.value);
    });
    this.form.addEventListener('keydown', event => {
      if (event.key === 'Escape') { this._open(false); this.buttons.other.focus(); }
    });
    this.element.append(marks);
  }

  _open(isOpen) {
    this.form.hidden = !isOpen;
    this.buttons.other.setAttribute('aria-expanded', String(isOpen));
    if (isOpen) this.input.focus();
  }

  async _mark(verdict, label = '') {
    const before = document.activeElement;
    try {
      const mark = await send(`api/events/${encodeURIComponent(this.id)}/mark`, {verdict, label});
      this._open(false);
      this.show({...this.values, mark: mark.verdict === 'none' ? null : mark});
      if (before && !before.checkVisibility()) this.buttons[mark.verdict === 'none' ? 'right' : mark.verdict].focus();
      this.onMarked(null, mark.verdict === 'none' ? 'Mark taken back' : `Saved: ${this._words(mark)}`);
    } catch (error) { this.onMarked(error); }
  }

  _words(mark) { return mark.verdict === 'other' ? `it was ${mark.label}` : MARKED[mark.verdict]; }

  show(values) {
    const before = this.values;
    this.values = values;
    const isGoing = values.state === 'started';
    this.element.classList.toggle('started', isGoing);
    say(this.label, values.label);
    say(this.score, percent(values.confidence));
    say(this.where, [values.source, values.zone, values.track && `person ${values.track}`, values.model].filter(Boolean).join(' \u00b7 '));
    const began = new Date(values.started_at), ended = values.ended_at ? new Date(values.ended_at) : null;
    const day = began.toDateString() === new Date().toDateString() ? '' : `${DAY.format(began)}, `;
    say(this.when, isGoing ? `since ${day}${TIME.format(began)}` : `${day}${TIME.format(began)} \u2013 ${TIME.format(ended ?? began)}, ${(values.lasts_s ?? 0).toFixed(1)}\u00a0s`);
    say(this.note, values.note);
    if (!before || before.clip !== values.clip || before.has_picture !== values.has_picture || before.is_stored !== values.is_stored || before.state !== values.state) this._showMedia();
    if (!this.form) return;
    const {mark} = values;
    for (const [verdict, button] of Object.entries(this.buttons)) button.setAttribute('aria-pressed', String(mark?.verdict === verdict));
    say(this.said, mark ? `Marked: ${this._words(mark)}` : '');
    this.undo.hidden = !mark;
  }

  _showMedia() {
    const {values} = this, route = `api/events/${encodeURIComponent(this.id)}`;
    if (!values.is_stored) {
      this.media.replaceChildren(values.state === 'started' ? 'goes on' : this.form ? 'the clip is being written' : 'no clip is kept');
      return;
    }
    const parts = [values.has_picture ? make('img', {src: `${route}/picture`, alt: '', loading: 'lazy'}) : 'no picture'];
    if (values.clip) {
      const play = make('button', {type: 'button', 'aria-label': `Play the clip: ${values.label}, ${values.source}`}, make('span', {text: '\u25b6 Play'}));
      play.addEventListener('click', () => this._play(`${route}/clip`));
      parts.push(play);
    }
    this.media.replaceChildren(...parts);
  }

  _play(address) {
    const video = make('video', {controls: '', playsinline: '', preload: 'auto', src: address, tabindex: '0'});
    video.muted = true; // sound is on the controls; a page may play by itself only without
    video.addEventListener('error', () => {
      this.media.replaceChildren('This browser cannot play the clip.\u00a0', make('a', {href: address, download: this.values.clip, text: 'Save it'}));
    });
    this.media.replaceChildren(video);
    video.focus();
    video.play().catch(() => {}); // refused; the controls are there
  }
}

export class Events {
  constructor(parts, onMarked) {
    this.parts = parts;
    this.onMarked = onMarked;
    this.cards = new Map();
    this.entries = new Map();
    this.canMark = false;
    this.shown = [];
    this.touched_ms = -HOLD_MS;
    for (const choice of [parts.bySource, parts.byLabel, parts.byMark]) {
      choice.addEventListener('change', () => { this.touched_ms = -HOLD_MS; this.arrange(); });
    }
    for (const kind of ['pointermove', 'pointerdown', 'keydown', 'focusin']) {
      parts.list.addEventListener(kind, () => { this.touched_ms = performance.now(); });
    }
  }

  show(entries) {
    entries = new Map([...entries].filter(([, values]) => values.state !== 'withdrawn' || values.is_stored)); // told as started, and none after all
    this.entries = entries;
    for (const id of this.cards.keys()) if (!entries.has(id)) this.cards.delete(id);
    for (const [id, values] of entries) {
      if (!this.cards.has(id)) this.cards.set(id, new Card(values, this.onMarked, this.canMark));
      const card = this.cards.get(id);
      if (card.values !== values) card.show(values);
    }
    this._offer(this.parts.bySource, 'source');
    this._offer(this.parts.byLabel, 'label');
    this.arrange();
  }

  _offer(choice, name) {
    const found = [...new Set([...this.entries.values()].map(values => values[name]).concat(choice.value || []))].sort();
    const known = [...choice.options].slice(1).map(option => option.value);
    if (found.join('\n') === known.join('\n')) return;
    const chosen = choice.value;
    choice.replaceChildren(choice.options[0], ...found.map(text => make('option', {text, value: text})));
    choice.value = chosen;
  }

  arrange() {
    const {bySource, byLabel, byMark, list, summary} = this.parts;
    let cards = [...this.cards.values()].filter(({values}) => (!bySource.value || values.source === bySource.value)
      && (!byLabel.value || values.label === byLabel.value) && (!byMark.value || (byMark.value === 'yes') === Boolean(values.mark)));
    const rank = ({values}) => [values.state === 'started' ? 1 : 0, values.started_at, values.id];
    cards.sort((one, other) => {
      const [a, b] = [rank(one), rank(other)];
      return b[0] - a[0] || (a[1] < b[1] ? 1 : a[1] > b[1] ? -1 : a[2] < b[2] ? 1 : -1);
    });
    const total = this.cards.size, matching = cards.length;
    let held = 0;
    if (performance.now() - this.touched_ms < HOLD_MS) {
      const before = this.shown.filter(card => this.cards.get(card.id) === card);
      held = cards.filter(card => !before.includes(card)).length;
      cards = before;
    }
    this.shown = cards;
    arrange(list, cards.map(card => card.element));
    const more = held ? ` ${held} more in a moment.` : '';
    say(summary, total === 0 ? 'None yet.' : (matching === total ? `${total}, the newest first.` : `${matching} of ${total}.`) + more);
  }

  get numMarked() { return [...this.cards.values()].filter(card => card.values.mark).length; }
}
