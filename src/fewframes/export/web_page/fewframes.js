/* Label videos in the browser with a model that `fewframes export --format web` wrote. index.html shows it; other pages may import it:

     import {Model, fitted, framesOf, partCentres} from './fewframes.js';
     const model = await Model.load('./'), {view, num_frames} = model.about, embeddings = [];
     for await (const {picture} of framesOf(video, partCentres(0, video.duration, num_frames)))
       embeddings.push(await model.embed(fitted(picture, view)));
     const {top} = await model.label(embeddings);

   A picture is {data, width, height, step}: bytes of RGB pixels, row by row, and the number of bytes from pixel to pixel (3 or 4).
   Colours and sizes are computed as the Python package computes them (FFmpeg's and Pillow's arithmetic), so that the answers agree. */

/* The folders, beside the model, that the library is looked for in: where npm puts it, and one for copies of its two files. */
const LIBRARY_FOLDERS = ['node_modules/onnxruntime-web/dist/', 'onnxruntime-web/'];
const LIBRARY_FILE = 'ort.wasm.bundle.min.mjs';
/* From this width on, and above this height, a picture that names no colour matrix counts as HD. */
const HD_WIDTH_PX = 1280, SD_HEIGHT_PX = 576;
/* FFmpeg's coefficients of colour matrices: red from V, blue from U, green from U and V, times 65536. */
const BT601 = [104597, 132201, 25675, 53279], BT709 = [117489, 138438, 13975, 34925];
const MATRICES = {bt709: BT709, smpte170m: BT601, bt470bg: BT601};
/* The largest ratio of long to short side. A longer picture loses its far ends before it is resized to be cropped. */
const MAX_ASPECT = 16;
const PRECISION_BITS = 22;
const SEEK_MS = 15000, SHOWN_MS = 1000;

/* Return the centres of equal parts of a range, in seconds: the paper's uniform sampling. */
export function partCentres(startS, endS, numParts) {
  return Array.from({length: numParts}, (_, part) => startS + (part + 0.5) * ((endS - startS) / numParts));
}

/* Return the nearest whole number; halves go to the even one, as in Python. */
function rounded(value) {
  const below = Math.floor(value), rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2) ? below + 1 : below;
}

/* Return a window of a picture around its middle, as a picture in the same memory. */
function cut(picture, height, width) {
  const row = picture.row ?? picture.width * picture.step;
  const top = rounded((picture.height - height) / 2), left = rounded((picture.width - width) / 2);
  return {...picture, height, width, row, start: (picture.start ?? 0) + top * row + left * picture.step};
}

const FILTERS = {
  bilinear: {support: 1, at: x => Math.max(0, 1 - Math.abs(x))},
  bicubic: {support: 2, at(x) {
    const a = -0.5;
    x = Math.abs(x);
    return x < 1 ? ((a + 2) * x - (a + 3)) * x * x + 1 : x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
  }},
};

/* Return, for the middle `count` pixels of the new side, the first old pixel and the weights of the old ones, as Pillow's fixed-point
   numbers. Pillow holds the ends of that window on the old side in single precision. */
function weightsOf(oldSize, newSize, count, {support, at}) {
  const ratio = oldSize / newSize, skipped = rounded((newSize - count) / 2), begin = Math.fround(skipped * ratio);
  const scale = Math.fround(Math.fround(Math.min((skipped + count) * ratio, oldSize)) - begin) / count;
  const spread = Math.max(1, scale), reach = support * spread;
  return Array.from({length: count}, (_, index) => {
    const centre = begin + (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5)), end = Math.min(oldSize, Math.trunc(centre + reach + 0.5));
    const weights = Array.from({length: end - first}, (_, k) => at((k + first - centre + 0.5) / spread));
    const sum = weights.reduce((a, b) => a + b, 0);
    const fixed = weights.map(weight => Math.trunc(weight / sum * (1 << PRECISION_BITS) + (weight < 0 ? -0.5 : 0.5)));
    return {first, weights: Int32Array.from(fixed)};
  });
}

/* Return the middle of a picture at another size, `rows` x `columns` pixels of it, antialiased. Each side is resized by itself, the width
   first. The result is Pillow's, byte for byte; newer versions of Pillow may begin with the height of upright pictures, and where the
   proportions change, and values differ by some levels. */
export function resized(picture, height, width, interpolation, rows = height, columns = width) {
  if (height === picture.height && width === picture.width) return cut(picture, rows, columns);
  const filter = FILTERS[interpolation], half = 1 << (PRECISION_BITS - 1);
  let {data, step, start = 0, row = picture.width * step} = picture;
  if (width !== picture.width || columns !== width) {
    const out = new Uint8ClampedArray(picture.height * columns * 3);
    weightsOf(picture.width, width, columns, filter).forEach(({first, weights}, x) => {
      for (let y = 0; y < picture.height; y++) {
        let r = half, g = half, b = half, from = start + y * row + first * step;
        for (let k = 0; k < weights.length; k++, from += step) {
          const weight = weights[k];
          r += data[from] * weight; g += data[from + 1] * weight; b += data[from + 2] * weight;
        }
        const to = (y * columns + x) * 3;
        out[to] = r >> PRECISION_BITS; out[to + 1] = g >> PRECISION_BITS; out[to + 2] = b >> PRECISION_BITS;
      }
    });
    [data, step, start, row] = [out, 3, 0, columns * 3];
  }
  if (height !== picture.height || rows !== height) {
    const out = new Uint8ClampedArray(rows * columns * 3);
    weightsOf(picture.height, height, rows, filter).forEach(({first, weights}, y) => {
      for (let x = 0; x < columns; x++) {
        let r = half, g = half, b = half, from = start + first * row + x * step;
        for (let k = 0; k < weights.length; k++, from += row) {
          const weight = weights[k];
          r += data[from] * weight; g += data[from + 1] * weight; b += data[from + 2] * weight;
        }
        const to = (y * columns + x) * 3;
        out[to] = r >> PRECISION_BITS; out[to + 1] = g >> PRECISION_BITS; out[to + 2] = b >> PRECISION_BITS;
      }
    });
    [data, step, start, row] = [out, 3, 0, columns * 3];
  }
  return {data, width: columns, height: rows, step, start, row};
}

/* Return a picture as the square that the network takes, channel by channel: (3, crop_px, crop_px) bytes. `view` is that of model.json. */
export function fitted(picture, view) {
  const size = view.crop_px;
  let {width, height} = picture, square;
  if (view.fit === 'crop') {
    const longest = MAX_ASPECT * Math.min(width, height);
    picture = cut(picture, Math.min(height, longest), Math.min(width, longest));
    ({width, height} = picture);
    const scale = view.resize_px / Math.min(height, width);
    square = resized(picture, height <= width ? view.resize_px : Math.trunc(height * scale),
      width <= height ? view.resize_px : Math.trunc(width * scale), view.interpolation, size, size);
  } else {
    const scale = size / Math.max(height, width);
    const side = length => view.fit === 'squash' ? size : Math.max(1, rounded(length * scale));
    square = resized(picture, side(height), side(width), view.interpolation);
  }
  const {data, step, start, row} = square, out = new Uint8Array(3 * size * size);
  const top = (size - square.height) >> 1, left = (size - square.width) >> 1;
  for (let c = 0; c < 3; c++) {
    const plane = out.subarray(c * size * size, (c + 1) * size * size).fill(rounded(Math.fround(Math.fround(view.mean[c]) * 255)));
    for (let y = 0; y < square.height; y++)
      for (let x = 0; x < square.width; x++) plane[(top + y) * size + left + x] = data[start + y * row + x * step + c];
  }
  return out;
}

/* Return planes of 4:2:0 video as RGB, as FFmpeg converts them on x86: each colour value stands for four pixels, products are cut to
   whole numbers. `planes` are Y, U and V: {data, offset, stride, step}. */
export function rgbOf(planes, width, height, matrix = null, isFullRange = false) {
  const coefficients = MATRICES[matrix] ?? (width >= HD_WIDTH_PX || height > SD_HEIGHT_PX ? BT709 : BT601);
  const [red, blue, greenU, greenV] = coefficients.map(c => Math.round(Math.trunc(isFullRange ? c * 224 / 255 : c) / 8));
  const gain = Math.round(Math.trunc(isFullRange ? 65536 : 65536 * 255 / 219) / 8), black = isFullRange ? 0 : 16;
  const table = f => Int32Array.from({length: 256}, (_, value) => f(value));
  const grey = table(y => ((y - black) * 8 * gain) >> 16);
  const chroma = coefficient => table(c => ((c - 128) * 8 * coefficient) >> 16);
  const [rv, bu, gu, gv] = [red, blue, -greenU, -greenV].map(chroma);
  const data = new Uint8ClampedArray(width * height * 3), [Y, U, V] = planes;
  for (let y = 0, to = 0; y < height; y++) {
    let fromY = Y.offset + y * Y.stride;
    const rowU = U.offset + (y >> 1) * U.stride, rowV = V.offset + (y >> 1) * V.stride;
    for (let x = 0; x < width; x++, to += 3, fromY += Y.step) {
      const light = grey[Y.data[fromY]], u = U.data[rowU + (x >> 1) * U.step], v = V.data[rowV + (x >> 1) * V.step];
      data[to] = light + rv[v]; data[to + 1] = light + gu[u] + gv[v]; data[to + 2] = light + bu[u];
    }
  }
  return {data, width, height, step: 3};
}

/* Return the picture that a <video> shows, with `timeS` where the browser tells it. Where the browser gives the stored colours
   (WebCodecs, 8 bits, 4:2:0, square pixels, not turned) they are converted here; otherwise the browser's own conversion is taken from a canvas. */
export async function pictureOf(video, {canvasOnly = false} = {}) {
  const {videoWidth: width, videoHeight: height} = video;
  if (!canvasOnly && typeof VideoFrame === 'function') {
    const frame = new VideoFrame(video);
    try {
      const {format, visibleRect, displayWidth, displayHeight, colorSpace, timestamp} = frame;
      const sizes = [visibleRect?.width, displayWidth, visibleRect?.height, displayHeight];
      const isAsStored = sizes.every((size, index) => size === (index < 2 ? width : height)) && !frame.rotation && !frame.flip;
      if (isAsStored && ['I420', 'NV12'].includes(format) && (colorSpace.matrix ?? 'bt709') in MATRICES) {
        const data = new Uint8Array(frame.allocationSize()), layout = await frame.copyTo(data);
        const planes = layout.map(({offset, stride}) => ({data, offset, stride, step: 1}));
        if (format === 'NV12') {
          planes[1].step = 2;
          planes[2] = {...planes[1], offset: planes[1].offset + 1};
        }
        const picture = rgbOf(planes, width, height, colorSpace.matrix, colorSpace.fullRange ?? false);
        return {...picture, timeS: timestamp / 1e6, source: 'planes'};
      }
    } finally { frame.close(); }
  }
  const context = new OffscreenCanvas(width, height).getContext('2d', {willReadFrequently: true});
  context.drawImage(video, 0, 0, width, height);
  return {data: context.getImageData(0, 0, width, height).data, width, height, step: 4, source: 'canvas'};
}

/* Wait until one of a <video>'s events comes. Rejects if the video cannot be decoded, or nothing comes in time. */
export function after(video, event, begin = () => {}) {
  return new Promise((resolve, reject) => {
    const stop = new AbortController(), options = {signal: stop.signal};
    const end = (settle, value) => { stop.abort(); clearTimeout(timer); settle(value); };
    const timer = setTimeout(() => end(reject, new Error(`the video did not answer within ${SEEK_MS / 1000} s; try another file`)), SEEK_MS);
    video.addEventListener(event, () => end(resolve), options);
    video.addEventListener('error', () => end(reject, new Error('this browser cannot decode the video; try MP4 (H.264) or WebM')), options);
    begin();
  });
}

/* Go to a time of a <video>. Return when its frame is first shown, if the browser tells it. */
async function seek(video, timeS) {
  // `seeked` can come while the picture before is still shown, so the next one is awaited. A hidden page shows none.
  let request;
  const shown = new Promise(resolve => { request = video.requestVideoFrameCallback?.((_, {mediaTime}) => resolve(mediaTime)); });
  await after(video, 'seeked', () => { video.currentTime = timeS; });
  if (request === undefined) return undefined;
  const startS = await Promise.race([shown, new Promise(resolve => setTimeout(resolve, SHOWN_MS))]);
  video.cancelVideoFrameCallback(request);
  return startS;
}

/* Yield {picture, timeS} at each of ascending times of a <video> whose `loadeddata` has come. */
export async function* framesOf(video, timesS, options) {
  for (const timeS of timesS) {
    const startS = await seek(video, timeS), picture = await pictureOf(video, options);
    yield {picture, timeS: picture.timeS ?? startS ?? timeS};
  }
}

/* Import onnxruntime-web from a folder beside the model; nothing is loaded from another host. */
async function library(base) {
  for (const folder of LIBRARY_FOLDERS) {
    const address = new URL(folder + LIBRARY_FILE, base);
    if ((await fetch(address, {method: 'HEAD'})).ok) return {...await import(address), folder: new URL(folder, base).href};
  }
  throw new Error('onnxruntime-web is not in this folder; run "npm install" in it (README.txt says how to do without npm)');
}

/* A model: its description (model.json: labels, view, num_frames), its frame encoder and its temporal part. */
export class Model {
  constructor(ort, about, frames, time) { Object.assign(this, {ort, about, frames, time}); }

  /* Load a model from the folder at an address. */
  static async load(address = './') {
    const base = new URL(address, document.baseURI), ort = await library(base);
    ort.env.wasm.wasmPaths = ort.folder;
    // Threads need memory that is shared, which browsers only give pages of servers that isolate them (see the guide).
    ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
    const answer = await fetch(new URL('model.json', base));
    if (!answer.ok) throw new Error(`model.json cannot be loaded (${answer.status}); export the model again`);
    const about = await answer.json();
    const open = part => ort.InferenceSession.create(new URL(about.graphs[part], base).href, {executionProviders: ['wasm']});
    return new Model(ort, about, await open('frames'), await open('time'));
  }

  /* Return the embedding (D,) of a square (3, crop_px, crop_px) that `fitted` made. */
  async embed(square) {
    const size = this.about.view.crop_px;
    const {frame_embeddings} = await this.frames.run({frames: new this.ort.Tensor('uint8', square, [1, 3, size, size])});
    return frame_embeddings.data;
  }

  /* Return the answer for the embeddings of at least three frames: {top, scores, attention, embedding}, the likeliest first. */
  async label(embeddings, topk = 5) {
    const joined = new Float32Array(embeddings.length * embeddings[0].length);
    embeddings.forEach((embedding, index) => joined.set(embedding, index * embedding.length));
    const found = await this.time.run({
      frame_embeddings: new this.ort.Tensor('float32', joined, [1, embeddings.length, embeddings[0].length])});
    const [scores, attention, embedding] = ['scores', 'frame_attention', 'embedding'].map(name => Array.from(found[name].data));
    const top = scores.map((score, index) => ({label: this.about.labels[index], score})).sort((a, b) => b.score - a.score);
    return {top: top.slice(0, topk), scores, attention, embedding};
  }
}
