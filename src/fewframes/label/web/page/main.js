/* The page for labelling: its buttons, and the asking of the server how things stand. */
import {$, make} from './dom.js';
import {answer, mark, nextMoment, rename, toggleGrid, undo} from './answers.js';
import {connection, get, onConnection, send} from './api.js';
import {fail, known, open, player, refresh, timeline, trying} from './known.js';
import {listenToKeys} from './keys.js';
import {write} from './model.js';

const POLL_MS = 1500;

const BUTTONS = {
  back: () => player.seek(player.time_s - 1), play: () => player.toggle(), forward: () => player.seek(player.time_s + 1),
  'mark-in': () => mark('start_s'), 'mark-out': () => mark('end_s'), next: nextMoment, undo: () => undo('undo'), redo: () => undo('redo'),
  'open-grid': toggleGrid, 'close-grid': toggleGrid, 'open-help': () => $('help').showModal(), write,
  'zoom-in': () => timeline.zoom(1 / 1.5), 'zoom-out': () => timeline.zoom(1.5),
  'open-rename': () => {
    const names = known.state.labels.filter(label => !label.is_background).map(label => label.name);
    $('rename-old').replaceChildren(...names.map(name => make('option', {value: name, text: name})));
    $('rename').showModal();
  },
};

/* Do something with the text of a form's field, and empty it. */
function onText(form, field, run) {
  $(form).addEventListener('submit', event => {
    event.preventDefault();
    const words = $(field).value.trim();
    if (!words) return;
    $(field).value = '';
    $(field).blur();
    run(words);
  });
}

function listen() {
  for (const [id, run] of Object.entries(BUTTONS)) $(id).addEventListener('click', run);
  for (const button of document.querySelectorAll('[data-close]')) button.addEventListener('click', () => button.closest('dialog').close());
  // A button that was pressed with the mouse lets go of the focus, so that Space and Enter do what the help says. It does so before
  // anything else happens, because the button may be drawn anew then.
  document.addEventListener('click', event => { if (event.detail && event.target.closest('main button, #tools button')) document.activeElement.blur(); }, true);
  $('videos').addEventListener('change', event => {
    event.target.blur();
    trying(() => open(event.target.value));
  });
  onText('new-form', 'new-label', answer);
  onText('grid-form', 'grid-label', answer);
  onText('rename-form', 'rename-new', name => {
    $('rename').close();
    rename($('rename-old').value, name);
  });
  $('annotator').addEventListener('change', () => localStorage.setItem('fewframes-annotator', $('annotator').value.trim()));
  for (const id of ['single-keys', 'go-on']) {
    $(id).checked = localStorage.getItem(`fewframes-${id}`) !== 'off';
    $(id).addEventListener('change', () => localStorage.setItem(`fewframes-${id}`, $(id).checked ? 'on' : 'off'));
  }
  addEventListener('resize', () => timeline.redraw());
  listenToKeys();
}

onConnection(({isOnline, num_waiting}) => {
  const words = isOnline ? (num_waiting ? 'Saving' : 'Saved') : num_waiting ? `Offline, ${num_waiting} to send` : 'Offline';
  $('saved').className = isOnline ? (num_waiting ? 'busy' : 'good') : 'bad';
  $('saved').querySelector('b').textContent = words;
  if (!isOnline) fail(new Error('The server does not answer. What you do is kept here, and sent when it is back.'));
});

/* Ask how things stand, again and again: videos become ready, others label too, the server may have been away. */
async function poll() {
  const wasOnline = connection().isOnline;
  try {
    await refresh(!wasOnline);
    if (wasOnline === false) {
      fail();
      player.retry();
    }
    if (connection().num_waiting) {
      await send();
      await refresh(true);
    }
  } catch (error) {
    if (!error.isOffline) fail(error);
  }
  setTimeout(poll, document.hidden ? 5 * POLL_MS : POLL_MS);
}

listen();
known.about = await trying(() => get('api/about')) ?? {};
$('annotator').value = localStorage.getItem('fewframes-annotator') || known.about.annotator || '';
if (known.about.project) document.title = `${known.about.project.split(/[\\/]/).at(-1)} - fewframes label`;
poll();
