// A made-up project for the mock server: simulated devices, their log lines and variables, wanted
// values with receipts, and viewers that resume by cursor. In memory, bounded, no promises kept.

import { declarations, message, NAMES } from './words.mjs';

const RECORDS_MAX = 50_000;
const FRAME_MS = 100;
const LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'];

export function makeProject(key, deviceCount, rate) {
  const state = {
    key,
    rate,
    epoch: 'a1b2c3d4',
    revision: 3,
    position: 0,
    oldest: 0,
    records: [],
    wanted: new Map(),
    devices: new Map(),
    viewers: new Set(),
  };
  for (let i = 0; i < deviceCount; i++) addDevice(state, i, i !== deviceCount - 1 || deviceCount < 3);
  if (deviceCount > 0) {
    state.wanted.set('god_mode', wantedOf('god_mode', 'boolean', 'false', 2));
    state.wanted.set('spawn_rate', wantedOf('spawn_rate', 'float', '1.5', 3));
    state.wanted.set('boss_hint', wantedOf('boss_hint', 'string', 'look up', 3));
    for (const device of state.devices.values()) {
      device.states.god_mode = { state: device.online ? 'applied' : 'offline', ms: 6, rev: 2 };
      device.states.spawn_rate = { state: device.online ? 'applied' : 'offline', ms: 4, rev: 3 };
      device.states.boss_hint = { state: device.online ? 'waiting' : 'offline', rev: 3 };
    }
    for (let i = 0; i < 400; i++) push(state, makeRecord(state, Date.now() - (400 - i) * 900));
  }
  let owed = 0;
  setInterval(() => {
    owed += (state.rate * FRAME_MS) / 1000;
    const items = [];
    for (; 1 <= owed; owed -= 1) items.push(push(state, makeRecord(state, Date.now())));
    if (items.length) logsTo(state, items);
  }, FRAME_MS);
  setInterval(() => drift(state), 1000);
  return project(state);
}

function wantedOf(name, type, value, rev, actor = 'dashboard') {
  return { name, type, value, scope: 'all', rev, at: new Date().toISOString(), actor };
}

function addDevice(state, i, online = true) {
  const device = {
    device: `${i % 3 === 2 ? 's' : 'pc'}-${(0x1f2e3d + i * 7919).toString(16)}`,
    name: NAMES[i % NAMES.length],
    online,
    since: new Date(Date.now() - (i * 7 + 2) * 60_000).toISOString(),
    session: `run-${i}`,
    rev: state.revision,
    reported: new Map(declarations(i).map((variable) => [variable.name, variable])),
    states: {},
    seq: 0,
  };
  state.devices.set(device.device, device);
  return device;
}

function online(state) {
  return [...state.devices.values()].filter((device) => device.online);
}

function makeRecord(state, at, fixed) {
  const games = online(state);
  const device = games[Math.floor(Math.random() * games.length)];
  const made = fixed ?? message(device?.seq ?? 0);
  const seq = device ? ++device.seq : 0;
  state.position += 1;
  return {
    ...made,
    timestamp: at,
    observer: {
      id: `r${state.position}`,
      key: state.key,
      device: device?.device ?? 's-none',
      session: device?.session ?? 'run',
      seq,
      received: new Date(at).toISOString(),
      rev: state.revision,
      level: made.level ?? 'info',
      time: new Date(at - 8).toISOString(),
      message: made.message,
      ...(made.tag ? { tag: made.tag } : {}),
    },
  };
}

function push(state, record) {
  state.records.push(record);
  if (RECORDS_MAX < state.records.length) state.records.splice(0, 1000);
  return record;
}

function matcher(params) {
  const least = LEVELS.indexOf(params.get('level') ?? '');
  const device = params.get('device') ?? '';
  const words = (params.get('q') ?? '').toLowerCase().match(/\S*"[^"]*"|\S+/g) ?? [];
  return (record) => {
    if (0 <= least && LEVELS.indexOf(record.observer.level) < least) return false;
    if (device && record.observer.device !== device) return false;
    const text = JSON.stringify(record).toLowerCase();
    return words.every((word) => {
      const field = /^(\w+):(.+)$/.exec(word);
      if (field) return String(record[field[1]] ?? '').toLowerCase() === field[2].replaceAll('"', '');
      return text.includes(word.replaceAll('"', ''));
    });
  };
}

function send(viewer, frame) {
  if (viewer.socket.readyState === 1) viewer.socket.send(JSON.stringify(frame));
}

function all(state, frame) {
  for (const viewer of state.viewers) send(viewer, { ...frame, cursor: `c${state.position}` });
}

function logsTo(state, items) {
  for (const viewer of state.viewers) {
    const found = items.filter(viewer.matches);
    if (found.length) send(viewer, { type: 'logs', cursor: `c${state.position}`, items: found });
  }
}

function varsFrame(state, devices, wanted = false) {
  const list = devices.map(({ device, reported, states }) => ({ device, reported, states }));
  const frame = { type: 'vars', revision: state.revision, epoch: state.epoch, devices: list };
  all(state, wanted ? { ...frame, wanted: [...state.wanted.values()] } : frame);
}

function drift(state) {
  for (const device of online(state)) {
    const fps = device.reported.get('fps');
    if (!fps) continue;
    fps.value = (58 + Math.random() * 3).toFixed(1);
    varsFrame(state, [{ device: device.device, reported: [fps], states: {} }]);
  }
}

/** Each device answers an edit in its own time; one is slow, and all take no jump_height over 5. */
function deliver(state, names) {
  [...state.devices.values()].forEach((device, i) => {
    if (!device.online) return;
    const ms = 3 + i * 5 + Math.floor(Math.random() * 4);
    setTimeout(() => answer(state, device, names, ms), 250 + ms * 20);
  });
}

function answer(state, device, names, ms) {
  const reported = [];
  const states = {};
  for (const name of names) {
    const wanted = state.wanted.get(name);
    const variable = device.reported.get(name);
    if (!wanted) continue;
    if (!variable) states[name] = { state: 'waiting', rev: wanted.rev };
    else {
      const adjusts = name === 'jump_height' && 5 < Number(wanted.value);
      variable.value = adjusts ? '5.0' : wanted.value;
      variable.at = new Date().toISOString();
      reported.push(variable);
      states[name] = { state: adjusts ? 'adjusted' : 'applied', ms, rev: wanted.rev };
    }
  }
  Object.assign(device.states, states);
  varsFrame(state, [{ device: device.device, reported, states }]);
}

function patch(state, request, actor = 'dashboard') {
  const names = request.edits.map((edit) => edit.name);
  const since = request.if_revision ?? state.revision;
  const changed = [...state.wanted.values()].filter((wanted) => since < wanted.rev && names.includes(wanted.name));
  if (changed.length) return { status: 409, code: 'conflict', detail: 'changed meanwhile', revision: state.revision, changed };
  for (const [i, edit] of request.edits.entries()) {
    if (edit.value === '666' || edit.value === '666.0') {
      return { status: 422, code: 'bad_value', detail: 'the value may not be 666', field: `edits[${i}].value` };
    }
  }
  state.revision += 1;
  for (const edit of request.edits) {
    if (edit.unset) {
      state.wanted.delete(edit.name);
      continue;
    }
    const declared = [...state.devices.values()].map((device) => device.reported.get(edit.name)).find(Boolean);
    state.wanted.set(edit.name, wantedOf(edit.name, edit.type ?? declared?.type ?? 'string', edit.value, state.revision, actor));
  }
  const devices = [...state.devices.values()].map((device) => {
    const states = Object.fromEntries(
      names.filter((name) => state.wanted.has(name)).map((name) => [name, { state: device.online ? 'pending' : 'offline', rev: state.revision }]),
    );
    Object.assign(device.states, states);
    return { device: device.device, reported: [], states };
  });
  varsFrame(state, devices, true);
  deliver(state, names);
  return { revision: state.revision };
}

function view(state, socket, params) {
  const viewer = { socket, matches: matcher(params) };
  const cursor = params.get('cursor');
  send(viewer, { type: 'hello', cursor: `c${state.position}`, project: state.key, revision: state.revision, epoch: state.epoch });
  if (cursor) {
    const from = Number(cursor.slice(1));
    if (from < state.oldest) send(viewer, { type: 'reset', cursor: `c${state.position}` });
    else {
      send(viewer, { type: 'resumed', cursor: `c${state.position}` });
      const missed = state.records.filter((record) => from < Number(record.observer.id.slice(1))).filter(viewer.matches);
      if (missed.length) send(viewer, { type: 'logs', cursor: `c${state.position}`, items: missed });
    }
  }
  state.viewers.add(viewer);
  socket.on('close', () => state.viewers.delete(viewer));
}

function logs(state, params) {
  const limit = Math.min(1000, Number(params.get('limit') ?? 100));
  const before = params.get('cursor') ? Number(params.get('cursor')) : Infinity;
  const since = Date.parse(params.get('since') ?? '') || 0;
  const until = Date.parse(params.get('until') ?? '') || Infinity;
  const matches = matcher(params);
  const items = [];
  for (let i = state.records.length - 1; 0 <= i && items.length < limit; i--) {
    const record = state.records[i];
    const at = Date.parse(record.observer.received);
    const position = Number(record.observer.id.slice(1));
    if (position < before && since <= at && at <= until && matches(record)) items.push(record);
  }
  const last = items.at(-1);
  return { items, next: items.length === limit && last ? last.observer.id.slice(1) : null };
}

function firstStep(state, step) {
  if (step === 1) {
    const device = addDevice(state, 0);
    device.reported = new Map();
    const { device: id, name, since, session } = device;
    all(state, { type: 'devices', devices: [{ device: id, name, online: true, since, session }], removed: [] });
  } else if (step === 2) {
    logsTo(state, [push(state, makeRecord(state, Date.now(), { message: 'hello', level: 'info' }))]);
  } else {
    const device = online(state)[0];
    const gravity = { name: 'gravity', type: 'float', value: '9.8', min: 0, max: 20 };
    device.reported.set('gravity', gravity);
    varsFrame(state, [{ device: device.device, reported: [gravity], states: {} }]);
  }
}

function project(state) {
  return {
    set rate(perSecond) {
      state.rate = perSecond;
    },
    logs: (params) => logs(state, params),
    vars: () => ({
      revision: state.revision,
      epoch: state.epoch,
      wanted: [...state.wanted.values()],
      devices: [...state.devices.values()].map((device) => ({ ...device, reported: [...device.reported.values()] })),
    }),
    patch: (request, actor) => patch(state, request, actor),
    view: (socket, params) => view(state, socket, params),
    gap: (count) => all(state, { type: 'gap', count, reason: 'slow_viewer' }),
    cut() {
      for (const viewer of state.viewers) viewer.socket.terminate();
    },
    forget() {
      state.oldest = state.position + 1_000_000;
      for (const viewer of state.viewers) viewer.socket.terminate();
      setTimeout(() => (state.oldest = 0), 3000);
    },
    firstStep: (step) => firstStep(state, step),
  };
}
