/* Play a video: by the browser if it can, else as frames that the server decodes. Both have the same controls. */
import {$} from './dom.js';

const FRAME_S = 0.04;
const NOT_PLAYED = [3, 4]; // MediaError: damaged for this browser, or of a kind that it does not know

export class Player {
  constructor(onTime) {
    this.video = $('video');
    this.image = $('frame');
    this.onTime = onTime;
    this.info = null;
    this.isFrames = false;
    this.loop = null;
    this.time_s = 0;
    this._isPlaying = false;
    this._isLoading = false;
    this.video.addEventListener('error', () => this._failed());
    this.video.addEventListener('loadedmetadata', () => {
      if (!this.video.videoWidth) this._showFrames(); // sound alone: its pictures are of a kind that the browser does not know
      else if (this.time_s) this.video.currentTime = this.time_s;
    });
    this.video.addEventListener('seeked', () => this._told());
    this.video.addEventListener('ended', () => this.pause());
    this.video.addEventListener('click', () => this.toggle());
    this.image.addEventListener('click', () => this.toggle());
    const tick = () => { this._tick(); requestAnimationFrame(tick); };
    requestAnimationFrame(tick);
  }

  /* Show a video from a time on. */
  load(info, time_s = 0) {
    this.pause();
    this.loop = null;
    this.info = info;
    this.time_s = time_s;
    this.isFrames = false;
    this.image.hidden = true;
    this.video.hidden = false;
    $('player-note').hidden = true;
    this.video.src = `api/videos/${encodeURIComponent(info.id)}/file`;
    this._told();
  }

  get isPaused() { return !this._isPlaying; }
  get duration_s() { return this.info?.duration_s ?? 0; }

  toggle() { if (this.isPaused) this.play(); else this.pause(); }

  play() {
    if (!this.info) return;
    if (this.time_s >= this.duration_s - FRAME_S) this.seek(0);
    this._isPlaying = true;
    this._last_ms = performance.now();
    if (!this.isFrames) this.video.play().catch(() => this.pause()); // refused, or not loaded after all
    this._told();
  }

  pause() {
    this._isPlaying = false;
    this.video.pause();
    this._told();
  }

  /* Go to a time. A loop that the time lies outside of ends. */
  seek(time_s, {keepLoop = false} = {}) {
    this.time_s = Math.max(0, Math.min(this.duration_s, time_s));
    if (!keepLoop && this.loop && !(time_s >= this.loop.start_s && time_s <= this.loop.end_s)) this.loop = null;
    if (this.isFrames) this._askFrame();
    else if (this.video.readyState) this.video.currentTime = this.time_s;
    this._told();
  }

  step(num_frames) {
    this.pause();
    const frame_s = this.info?.fps ? 1 / this.info.fps : FRAME_S;
    this.seek(this.time_s + num_frames * frame_s);
  }

  /* Play a part again and again. */
  repeat(start_s, end_s, isPlaying) {
    this.loop = {start_s, end_s};
    this.seek(start_s, {keepLoop: true});
    if (isPlaying) this.play(); else this.pause();
  }

  /* Try again to play the file: the server is back. */
  retry() { if (this.info && !this.isFrames && this.video.error) this.load(this.info, this.time_s); }

  _failed() {
    if (!this.info || this.isFrames || !this.video.hasAttribute('src')) return;
    if (NOT_PLAYED.includes(this.video.error?.code)) this._showFrames();
  }

  _showFrames() {
    const wasPlaying = this._isPlaying;
    this.isFrames = true;
    this.video.removeAttribute('src');
    this.video.load();
    this.video.hidden = true;
    this.image.hidden = false;
    $('player-note').hidden = false;
    $('player-note').textContent = 'Your browser cannot play this kind of file, so you see frames that fewframes decodes. Times are exact.';
    this._askFrame();
    if (wasPlaying) this.play();
  }

  /* Show the frame at the current time. While one is on its way no other is asked for. */
  _askFrame() {
    if (this._isLoading || !this.info) return;
    const height_px = Math.min(720, Math.max(180, Math.round(this.image.parentElement.clientHeight * Math.min(2, devicePixelRatio) / 60) * 60));
    const asked = this.time_s, id = this.info.id, next = new Image();
    const done = isShown => {
      this._isLoading = false;
      if (!this.isFrames || this.info.id !== id) { if (this.isFrames) this._askFrame(); return; }
      if (isShown) this.image.src = next.src;
      if (asked !== this.time_s && isShown) this._askFrame();
    };
    this._isLoading = true;
    next.onload = () => done(true);
    next.onerror = () => done(false);
    next.src = `api/videos/${encodeURIComponent(id)}/frame?t=${asked.toFixed(3)}&height=${height_px}`;
  }

  _tick() {
    if (!this._isPlaying) return;
    if (this.isFrames) {
      const now_ms = performance.now();
      this.time_s = Math.min(this.duration_s, this.time_s + (now_ms - this._last_ms) / 1000);
      this._last_ms = now_ms;
      this._askFrame();
      if (this.time_s >= this.duration_s && !this.loop) this.pause();
    } else if (!this.video.seeking) this.time_s = this.video.currentTime;
    if (this.loop && this.time_s >= this.loop.end_s) this.seek(this.loop.start_s, {keepLoop: true});
    else this._told();
  }

  _told() { this.onTime(this.time_s, this.isPaused); }
}
