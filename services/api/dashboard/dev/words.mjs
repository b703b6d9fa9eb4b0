// What the mock's games say: names of devices, declarations of variables, log messages.

export const NAMES = ['Anna-PC', 'Pixel 7', 'Steam Deck', 'iPad', null, 'Ben-Mac', 'QA-3', 'Booth-1'];

export function declarations(i) {
  const at = new Date().toISOString();
  return [
    { name: 'gravity', type: 'float', value: '9.8', min: 0, max: 20, step: 0.1, unit: 'm/s²', group: 'Physics', help: 'Pull towards the ground', default: '9.8' },
    { name: 'jump_height', type: 'float', value: i % 2 ? '2.5' : '2.0', min: 0, max: 8, step: 0.1, unit: 'm', group: 'Physics' },
    { name: 'max_bodies', type: 'integer', value: '256', min: 16, max: 1024, group: 'Physics', applies: 'restart' },
    { name: 'god_mode', type: 'boolean', value: 'false', group: 'Player' },
    { name: 'difficulty', type: 'enum', value: 'normal', options: ['easy', { value: 'normal', label: 'Normal' }, 'hard'], group: 'Player' },
    { name: 'tint', type: 'color', value: '#ff8844ff', group: 'Look' },
    { name: 'spawn_point', type: 'vector', value: '[12,0.5,-4]', group: 'Player' },
    { name: 'motd', type: 'string', value: 'Welcome back', group: 'Look' },
    { name: 'spawn_rate', type: 'float', value: '1.5', min: 0, max: 5, group: 'Enemies', unit: '/s' },
    { name: 'loot_table', type: 'json', value: '{"coin":0.7,"gem":0.05}', group: 'Enemies' },
    { name: 'fps', type: 'float', value: '60.0', access: 'watch', group: 'Watch' },
  ].map((variable) => ({ ...variable, at }));
}

const LINES = [
  ['debug', 'net', (n) => `ack window ${n % 64}, rtt 18.2 ms, 0 resent`],
  ['info', 'game', (n) => `wave ${1 + (n % 40)} started, ${8 + (n % 12)} enemies`],
  ['info', 'net', (n) => `peer 10.0.0.${n % 250} joined in 41 ms`],
  ['info', 'audio', () => 'streamed music/boss_theme.ogg in 12 ms'],
  ['debug', 'ai', (n) => `agent ${n % 99}: patrol -> chase, target player, distance 7.3 m`],
  ['info', 'save', () => 'checkpoint written, 48.1 KiB'],
  ['trace', 'physics', (n) => `step ${n}: 182 bodies, 2.1 ms`],
  ['info', 'game', (n) => `player picked up gem #${n % 31}`],
  ['warn', 'render', (n) => `frame took 34.${n % 10} ms, budget is 16.6 ms`],
  ['info', 'ui', () => 'opened inventory <b>not markup</b>'],
  ['debug', 'net', () => 'snapshot 1.2 KiB, 14 entities changed'],
  ['error', 'script', () => 'NullReferenceException: Object reference not set to an instance of an object'],
];

const STACK = `  at Enemy.Update () in Assets/Scripts/Enemy.cs:42
  at UnityEngine.MonoBehaviour.InternalUpdate ()`;

export function message(seq) {
  const roll = Math.random();
  const index = roll < 0.02 ? 11 : roll < 0.07 ? 8 : Math.floor(Math.random() * (LINES.length - 1));
  const [level, tag, text] = LINES[index];
  const made = { message: text(seq), level, tag, frame: seq * 7, scene: 'Level2', hp: 10 + (seq % 90) };
  return level === 'error' ? { ...made, stack: STACK } : made;
}
