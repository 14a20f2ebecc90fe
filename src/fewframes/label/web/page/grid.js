/* Tag many moments at once: a list of tiles of which several can be chosen. */
import {$, clock, make} from './dom.js';
import {get} from './api.js';
import {whole} from './panel.js';
import {hueOf, named} from './timeline.js';

const PAGE = 60, FLIP_MS = 220, FLIPS = 5;

export class Grid {
  constructor(nameOf) {
    this.nameOf = nameOf;
    this.root = $('tiles');
    this.chosen = new Set();
    this.tiles = [];
    this.anchor = 0;
    this.root.addEventListener('click', event => {
      const index = this._indexOf(event.target);
      if (index >= 0) { this._choose(index, event.shiftKey); this._focus(index); }
    });
    this.root.addEventListener('keydown', event => this._key(event));
    for (const type of ['mouseover', 'focusin']) this.root.addEventListener(type, event => this._flip(this._indexOf(event.target)));
    for (const type of ['mouseleave', 'focusout']) this.root.addEventListener(type, () => this._flip(-1));
    $('order').addEventListener('change', () => this.load());
    $('more').addEventListener('click', () => this.load(true));
    $('grid-none').addEventListener('click', () => { this.chosen.clear(); this._shown(); });
  }

  /* Load the first tiles in this order, or more of them. */
  async load(isMore = false) {
    const offset = isMore ? this.tiles.length : 0;
    const answer = await get(`api/grid?num=${PAGE}&offset=${offset}&order=${$('order').value}`);
    this.tiles = isMore ? [...this.tiles, ...answer.tiles] : answer.tiles;
    this.total = answer.total;
    if (!isMore) { this.chosen.clear(); this.anchor = 0; }
    this.root.replaceChildren(...this.tiles.map(tile => this._tile(tile)));
    $('more').hidden = this.tiles.length >= this.total;
    this._shown();
  }

  get moments() { return [...this.chosen]; }

  note(words) { $('grid-note').textContent = words; }

  _tile(tile) {
    const image = make('img', {src: this._frame(tile, .5), alt: '', loading: 'lazy'});
    const found = make('div', {role: 'option', class: 'tile', tabindex: '-1', 'aria-selected': 'false'}, image,
      make('b', {text: tile.guess && named(tile.guess)}), make('span', {text: tile.guess && whole(tile.score)}), make('span', {text: `${this.nameOf(tile.video)} ${clock(tile.start_s)}`}));
    found.setAttribute('aria-label', `${tile.guess ? `${named(tile.guess)}, ${whole(tile.score)}, ` : ''}${this.nameOf(tile.video)} at ${clock(tile.start_s)}`);
    found.style.setProperty('--h', hueOf(tile.guess));
    return found;
  }

  _frame(tile, fraction) {
    const time_s = tile.start_s + fraction * (tile.end_s - tile.start_s);
    return `api/videos/${encodeURIComponent(tile.video)}/frame?t=${time_s.toFixed(3)}&height=120`;
  }

  _indexOf(element) { return [...this.root.children].indexOf(element.closest?.('.tile')); }

  _choose(index, isRange) {
    if (isRange) {
      const [from, to] = [this.anchor, index].sort((a, b) => a - b);
      for (const tile of this.tiles.slice(from, to + 1)) this.chosen.add(tile.id);
    } else {
      const {id} = this.tiles[index];
      if (!this.chosen.delete(id)) this.chosen.add(id);
      this.anchor = index;
    }
    this._shown();
  }

  _shown() {
    for (const [index, element] of [...this.root.children].entries()) {
      element.setAttribute('aria-selected', String(this.chosen.has(this.tiles[index].id)));
      element.tabIndex = index === this.anchor ? 0 : -1;
    }
    this.note(this.tiles.length
      ? `${this.chosen.size} chosen of ${this.tiles.length} shown, ${this.total} in all. Choose by click, Shift-click or Space, then a label.`
      : 'No moments here: the videos are still being looked at, or all are labelled.');
  }

  _focus(index) {
    const element = this.root.children[index];
    if (!element) return;
    for (const other of this.root.children) other.tabIndex = -1;
    element.tabIndex = 0;
    element.focus();
  }

  _key(event) {
    const index = this._indexOf(document.activeElement);
    if (index < 0) return;
    const columns = getComputedStyle(this.root).gridTemplateColumns.split(' ').length;
    const moves = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -index, End: this.tiles.length - 1 - index};
    if (event.key in moves) {
      const next = Math.max(0, Math.min(this.tiles.length - 1, index + moves[event.key]));
      if (event.shiftKey) this._choose(next, true);
      this._focus(next);
    } else if (event.key === ' ') this._choose(index, event.shiftKey);
    else if (event.key === 'a' && (event.ctrlKey || event.metaKey)) { for (const tile of this.tiles) this.chosen.add(tile.id); this._shown(); }
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /* Show the frames of a tile one after the other, so that one sees what moves. */
  _flip(index) {
    if (index === this.flipped) return;
    clearInterval(this.timer);
    const tile = this.tiles[this.flipped], image = this.root.children[this.flipped]?.querySelector('img');
    if (image && tile) image.src = this._frame(tile, .5);
    this.flipped = index;
    if (index < 0 || matchMedia('(prefers-reduced-motion: reduce)').matches) return;
    let number = 0;
    this.timer = setInterval(() => {
      const shown = this.root.children[index]?.querySelector('img');
      if (shown?.complete) shown.src = this._frame(this.tiles[index], (number++ % FLIPS + .5) / FLIPS);
    }, FLIP_MS);
  }
}
