/* Ask the server. Changes wait in line while it does not answer, also over a reload of the page, and are sent when it is back. */
const WAITING = 'fewframes-changes';
const waiting = JSON.parse(sessionStorage.getItem(WAITING) || '[]');
const promises = new Map();
const listeners = [];
let isOnline = null, isSending = false;

export const onConnection = listener => listeners.push(listener);
export const connection = () => ({isOnline, num_waiting: waiting.length});

function told() { for (const listener of listeners) listener(connection()); }

function setOnline(value) {
  const was = isOnline;
  isOnline = value;
  if (was !== value) told();
}

async function asked(path, options) {
  let response;
  try {
    response = await fetch(path, {cache: 'no-store', ...options});
  } catch {
    setOnline(false);
    throw Object.assign(new Error('the server does not answer'), {isOffline: true});
  }
  setOnline(true);
  let answer;
  try { answer = await response.json(); } catch { answer = {error: `the server answered ${response.status} without a reason`}; }
  if (!response.ok) throw Object.assign(new Error(answer.error), {status: response.status});
  return answer;
}

function request(method, body) {
  return {method, headers: {'Content-Type': 'application/json'}, body: JSON.stringify(body ?? {})};
}

export const get = path => asked(path, {});
/* Ask for something once. If the server does not answer it is not asked again. */
export const post = (path, body) => asked(path, request('POST', body));

/* Send a change, now or when the server is back. The promise holds its answer. */
export function change(method, path, body) {
  const id = `${Date.now()}-${Math.random()}`;
  waiting.push({id, method, path, body});
  const promise = new Promise((resolve, reject) => promises.set(id, {resolve, reject}));
  send();
  return promise;
}

export async function send() {
  if (isSending) return;
  isSending = true;
  try {
    keep();
    while (waiting.length) {
      const {id, method, path, body} = waiting[0];
      let settle;
      try {
        const answer = await asked(path, request(method, body));
        settle = promise => promise?.resolve(answer);
      } catch (error) {
        if (error.isOffline) break;
        settle = promise => promise?.reject(error);
      }
      waiting.shift();
      keep();
      settle(promises.get(id));
      promises.delete(id);
    }
  } finally {
    isSending = false;
  }
}

function keep() {
  sessionStorage.setItem(WAITING, JSON.stringify(waiting));
  told();
}
