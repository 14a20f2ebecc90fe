/* Ask for what is new each second, and show it. */
import {$, make} from './dom.js';
import {ask, counted, say, take} from './api.js';
import {Events} from './events.js';
import {Sources} from './sources.js';

const EVERY_MS = 1000, AWAY_MS = 3000;
const sources = new Map(), events = new Map();
let run = '', about = null, numbers = {sources: 0, events: 0};

const showError = error => say($('error'), error ? error.message : '');

const sourceCards = new Sources($('sources'), () => $('stills').checked);
$('stills').addEventListener('change', () => sourceCards.showStills());
const eventCards = new Events(
  {list: $('events'), summary: $('summary'), bySource: $('by-source'), byLabel: $('by-label'), byMark: $('by-mark')},
  (error, words) => {
    showError(error);
    if (words) say($('saved'), words);
    showTeaching();
  });

function showTeaching() {
  $('teaching').hidden = !eventCards.numMarked;
  say($('teaching'), `${counted(eventCards.numMarked, 'event')} marked. To learn from them: fewframes teach MODEL --events ${about?.folder ?? 'FOLDER'}`);
}

async function start() {
  about = await ask('api/about');
  eventCards.canMark = about.folder !== null;
  $('labels').replaceChildren(...about.labels.map(value => make('option', {value})));
}

async function look() {
  if (!about) await start();
  const told = await ask(`api/live?run=${run}&sources=${numbers.sources}&events=${numbers.events}`);
  if (run && told.run !== run) about = null; // another process: its models may be others
  run = told.run;
  numbers = {sources: told.sources.number, events: told.events.number};
  if (take(sources, told.sources, 'key')) sourceCards.show(sources);
  if (take(events, told.events, 'id')) { eventCards.show(events); showTeaching(); }
  eventCards.arrange(); // what was held back, and the first words where there are none
}

async function go() {
  let pause_ms = EVERY_MS;
  if (!document.hidden) {
    try {
      await look();
      say($('connection'), 'Connected');
      $('connection').className = '';
    } catch (error) {
      say($('connection'), error.isAway ? 'The stream has ended, or its server cannot be reached. Trying again.' : error.message);
      $('connection').className = 'bad';
      pause_ms = AWAY_MS;
    }
  }
  setTimeout(go, pause_ms);
}
go();
