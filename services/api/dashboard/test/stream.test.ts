import { describe, expect, it } from 'vitest';
import { HELLO_MS_MAX, RETRY_MS_MAX, RETRY_MS_MIN, retryDelay, STABLE_MS, Stream, type Socket, type StreamState } from '../src/lib/stream';
import type { Frame } from '../src/lib/types';

class FakeSocket implements Socket {
  onmessage: Socket['onmessage'] = null;
  onclose: Socket['onclose'] = null;
  onerror: Socket['onerror'] = null;
  closed = false;
  constructor(readonly cursor: string | null) {}
  close() {
    this.closed = true;
  }
  say(frame: unknown) {
    this.onmessage?.({ data: typeof frame === 'string' ? frame : JSON.stringify(frame) });
  }
  lose(code = 1006, reason = '') {
    this.onclose?.({ code, reason });
  }
}

function play() {
  const sockets: FakeSocket[] = [];
  const frames: Frame[] = [];
  const states: StreamState[] = [];
  const timers = new Map<number, { at: number; run: () => void }>();
  const clock = { now: 1000, next: 1 };
  const stream = new Stream({
    open: (cursor) => {
      const socket = new FakeSocket(cursor);
      sockets.push(socket);
      return socket;
    },
    frame: (frame) => frames.push(frame),
    state: (state) => states.push(state),
    now: () => clock.now,
    random: () => 0.5,
    after: (ms, run) => {
      timers.set(clock.next, { at: clock.now + ms, run });
      return clock.next++;
    },
    cancel: (timer) => timers.delete(timer as number),
  });
  const pass = (ms: number) => {
    clock.now += ms;
    for (const [id, timer] of [...timers]) {
      if (timer.at <= clock.now && timers.delete(id)) timer.run();
    }
  };
  const socket = () => sockets[sockets.length - 1] as FakeSocket;
  const state = () => states[states.length - 1] as StreamState;
  return { stream, sockets, frames, states, timers, pass, socket, state };
}

const hello = (cursor: string | null) => ({ type: 'hello', cursor, project: 'k', revision: 1, epoch: 'e' });

describe('stream', () => {
  it('is live once the server said hello', () => {
    const t = play();
    t.stream.start();
    expect(t.state().name).toBe('connecting');
    t.socket().say(hello('c1'));
    expect(t.state().name).toBe('live');
    expect(t.socket().cursor).toBeNull();
  });

  it('comes back with the last cursor', () => {
    const t = play();
    t.stream.start();
    t.socket().say(hello('c1'));
    t.socket().say({ type: 'logs', cursor: 'c7', items: [] });
    t.socket().lose();
    t.pass(RETRY_MS_MAX);
    expect(t.sockets.map((socket) => socket.cursor)).toEqual([null, 'c7']);
  });

  it('keeps its old cursor until what was missed has come', () => {
    const t = play();
    t.stream.start('c7');
    t.socket().say(hello('c9'));
    t.socket().say({ type: 'resumed', cursor: 'c9' });
    expect(t.stream.cursor).toBe('c7');
    t.socket().say({ type: 'logs', cursor: 'c9', items: [] });
    expect(t.stream.cursor).toBe('c9');
  });

  it('takes the new cursor after a reset', () => {
    const t = play();
    t.stream.start('c7');
    t.socket().say(hello('c9'));
    t.socket().say({ type: 'reset', cursor: 'c9' });
    expect(t.stream.cursor).toBe('c9');
  });

  it('gives up a socket that never says hello', () => {
    const t = play();
    t.stream.start();
    const silent = t.socket();
    t.pass(HELLO_MS_MAX);
    expect(silent.closed).toBe(true);
    expect(t.state()).toMatchObject({ name: 'waiting', reason: 'the server said no hello' });
  });

  it('waits longer after each failure, within the bounds', () => {
    expect(retryDelay(0, 0)).toBe(RETRY_MS_MIN);
    expect(retryDelay(0, 1)).toBe(2 * RETRY_MS_MIN);
    expect(retryDelay(2, 1)).toBe(8 * RETRY_MS_MIN);
    expect(RETRY_MS_MAX).toBe(5_000);
    expect(retryDelay(100, 1)).toBe(RETRY_MS_MAX);
    expect(retryDelay(100, 0)).toBe(RETRY_MS_MIN);
  });

  it('backs off anew only after a stream that lived for a while', () => {
    const t = play();
    t.stream.start();
    t.socket().lose();
    t.pass(RETRY_MS_MAX);
    t.socket().say(hello('c1'));
    t.socket().lose();
    expect(t.state()).toMatchObject({ attempt: 2 });
    t.pass(RETRY_MS_MAX);
    t.socket().say(hello('c1'));
    t.pass(STABLE_MS);
    t.socket().lose();
    expect(t.state()).toMatchObject({ attempt: 1 });
  });

  it('remembers since when it is lost, over several tries', () => {
    const t = play();
    t.stream.start();
    t.socket().lose();
    t.pass(RETRY_MS_MAX);
    t.socket().lose(1001);
    expect(t.state()).toMatchObject({ since: 1000, reason: 'the server is going away' });
  });

  it('retries at once when asked, and only while it waits', () => {
    const t = play();
    t.stream.start();
    t.stream.retryNow();
    expect(t.sockets).toHaveLength(1);
    t.socket().lose();
    t.stream.retryNow();
    expect(t.sockets).toHaveLength(2);
    expect(t.timers.size).toBe(1);
  });

  it('counts frames that it cannot read and goes on', () => {
    const t = play();
    t.stream.start();
    t.socket().say('not json');
    t.socket().say('null');
    t.socket().say(hello('c1'));
    expect(t.stream.malformed).toBe(2);
    expect(t.state().name).toBe('live');
  });

  it('hears nothing from a socket that it replaced', () => {
    const t = play();
    t.stream.start();
    const old = t.socket();
    t.stream.start();
    old.say(hello('c1'));
    expect(t.frames).toEqual([]);
    expect(old.closed).toBe(true);
  });
});
