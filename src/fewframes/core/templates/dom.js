/* What the pages of servers share. */
export const $ = id => document.getElementById(id);
export const clock = s => { // in tenths first, so that 59.96 s are 1:00.0
  const tenths = Math.round(10 * s);
  return `${Math.floor(tenths / 600)}:${(tenths % 600 / 10).toFixed(1).padStart(4, '0')}`;
};
export const percent = fraction => `${(100 * fraction).toFixed(1)}\u00a0%`; // no line ends before the sign

/* Make an element with text, attributes and children. Text is never taken for HTML. */
export function make(tag, {text, ...attributes} = {}, ...children) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  return filled(element, attributes, children);
}

/* Make an element of a drawing (SVG). */
export function draw(tag, attributes = {}, ...children) {
  return filled(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
}

/* Make an element whose `side` (width, height, left) is a fraction of its parent's. */
export function sized(tag, side, fraction) {
  const element = make(tag);
  element.style[side] = `${Math.max(0, Math.min(1, fraction)) * 100}%`;
  return element;
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
