/* Ask the server, and turn its errors into words. */
export async function ask(route, options = {}) {
  let answer;
  try { answer = await fetch(route, options); } catch { throw Object.assign(new Error('the server cannot be reached'), {isAway: true}); }
  const values = await answer.json().catch(() => ({error: `the server answered ${answer.status} without a reason`}));
  if (!answer.ok || values.error) throw new Error(values.error);
  return values;
}

export const send = (route, values) =>
  ask(route, {method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(values)});

/* Keep entries by their keys as the server tells what has changed. Return true if anything has. */
export function take(entries, told, key) {
  if (told.whole) entries.clear();
  for (const values of told.changed) entries.set(values[key], values);
  for (const gone of told.gone) entries.delete(gone);
  return told.whole || told.changed.length + told.gone.length > 0;
}

/* Put elements in order into a parent without moving those that stand right: a video that is moved stops. */
export function arrange(parent, elements) {
  const wanted = new Set(elements);
  for (const element of [...parent.children]) if (!wanted.has(element)) element.remove();
  elements.forEach((element, index) => {
    if (parent.children[index] !== element) parent.insertBefore(element, parent.children[index] ?? null);
  });
}

export const percent = fraction => `${Math.round(100 * fraction)}\u00a0%`;
export const counted = (number, noun) => `${number.toLocaleString('en')}\u00a0${noun}${number === 1 ? '' : 's'}`;

/* Set a text only if it differs, so that a selection and a screen reader are left alone. */
export function say(element, text) { if (element.textContent !== text) element.textContent = text; }
