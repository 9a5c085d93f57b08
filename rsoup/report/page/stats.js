// Statistics of paired scores, random numbers that come again, and the preference behind choices.

// The p-quantile of Student's t with df degrees of freedom: t = sqrt(df) tan(angle), whose density is cos(angle)^(df - 1).
function studentQuantile(p, df) {
  const steps = 4000, top = Math.min(Math.PI / 2, 12 / Math.sqrt(df));
  const below = new Float64Array(steps + 1);
  for (let k = 1; k <= steps; k++) {
    const [from, to] = [((k - 1) * top) / steps, (k * top) / steps];
    const density = (angle) => Math.max(0, Math.cos(angle)) ** (df - 1);
    below[k] = below[k - 1] + density(from) + 4 * density((from + to) / 2) + density(to);
  }
  const wanted = (2 * p - 1) * below[steps];
  const k = below.findIndex((value) => value >= wanted);
  const part = k > 0 ? (wanted - below[k - 1]) / (below[k] - below[k - 1]) : 0;
  return Math.sqrt(df) * Math.tan(((Math.max(k, 1) - 1 + part) * top) / steps);
}
const quantiles = new Map();
function student(p, df) {
  const key = `${p} ${df}`;
  if (!quantiles.has(key)) quantiles.set(key, studentQuantile(p, df));
  return quantiles.get(key);
}
// The share of wins among decided prompts with its interval (Wilson 1927).
function winShare(wins, losses) {
  const n = wins + losses;
  if (!n) return null;
  const z = 1.959963984540054, share = wins / n, down = 1 + (z * z) / n;
  const middle = (share + (z * z) / (2 * n)) / down;
  const reach = (z / down) * Math.sqrt((share * (1 - share)) / n + (z * z) / (4 * n * n));
  return { value: share, interval: [Math.max(0, middle - reach), Math.min(1, middle + reach)] };
}
// The mean of differences with Student's interval, one of ``together`` that hold at once (Bonferroni).
function meanOf(values, together = 1) {
  const n = values.length;
  if (!n) return null;
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  if (n < 2) return { value: mean, interval: null };
  const error = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1) / n);
  const reach = error * student(1 - 0.025 / together, n - 1);
  return { value: mean, interval: [mean - reach, mean + reach] };
}

// Numbers in [0, 1) that follow from a seed (xorshift).
function randomFrom(seed) {
  let word = (Math.imul(seed + 1, 0x9e3779b1) ^ 0x5bd1e995) | 0 || 1;
  const next = () => {
    word ^= word << 13;
    word ^= word >>> 17;
    word ^= word << 5;
    return (word >>> 0) / 2 ** 32;
  };
  for (let k = 0; k < 8; k++) next();
  return next;
}

// The same posterior as rsoup/pareto/looking.py: flat in mu and in log s, summed over a lattice.
const LATTICE_STEPS = { 1: 1, 2: 100, 3: 24, 4: 12, 5: 8, 6: 6 };
const SHARPNESS = Array.from({ length: 15 }, (_, k) => 2 ** (-1 + k / 2));
const NEAR = 0.05, LEAST = 8, SURE = 0.8;
function lattice(parts, steps) {
  if (parts === 1) return [[steps]];
  return Array.from({ length: steps + 1 }, (_, rest) => lattice(parts - 1, rest).map((tail) => [steps - rest, ...tail])).flat();
}
const latticeOf = (count) => {
  const steps = LATTICE_STEPS[count] ?? 4;
  return lattice(count, steps).map((row) => row.map((part) => part / steps));
};
const dot = (a, b) => a.reduce((sum, value, k) => sum + value * b[k], 0);
const softplus = (value) => Math.max(value, 0) + Math.log1p(Math.exp(-Math.abs(value)));
// ``shares`` has a row of scaled gains for each point; ``choices`` are [first, second, liked].
function preferred(shares, choices) {
  const mus = latticeOf(shares[0].length);
  const steps = choices.map(([first, second]) => shares[first].map((value, k) => value - shares[second][k]));
  const logs = mus.map((mu) => {
    const utility = steps.map((step) => dot(mu, step));
    return SHARPNESS.map((s) => -choices.reduce((sum, [, , liked], k) => sum + liked * softplus(-s * utility[k]) + (1 - liked) * softplus(s * utility[k]), 0));
  });
  const highest = Math.max(...logs.map((row) => Math.max(...row)));
  const joint = logs.map((row) => row.map((value) => Math.exp(value - highest)));
  const sums = joint.map((row) => row.reduce((a, b) => a + b, 0));
  const whole = sums.reduce((a, b) => a + b, 0);
  const weights = sums.map((value) => value / whole);
  const mu = shares[0].map((_, k) => weights.reduce((sum, weight, h) => sum + weight * mus[h][k], 0));
  const best = shares.reduce((a, row, k) => (dot(row, mu) > dot(shares[a], mu) ? k : a), 0);
  const sure = weights.reduce((sum, weight, h) => {
    const top = Math.max(...shares.map((row) => dot(row, mus[h])));
    return sum + (dot(shares[best], mus[h]) >= top - NEAR ? weight : 0);
  }, 0);
  const decided = choices.filter(([, , liked]) => liked !== 0.5);
  const agreeing = decided.filter(([first, second, liked]) => Math.sign(dot(shares[first], mu) - dot(shares[second], mu)) === Math.sign(liked - 0.5)).length;
  const interval = mu.map((_, k) => [0.025, 0.975].map((part) => quantileOf(mus.map((row) => row[k]), weights, part)));
  return { mu, interval, best, sure, agreeing, decided: decided.length, choices: choices.length, known: choices.length >= LEAST && sure >= SURE, mus, joint };
}
function quantileOf(values, weights, part) {
  const order = [...values.keys()].sort((a, b) => values[a] - values[b]);
  let below = 0;
  for (const k of order) {
    below += weights[k];
    if (below >= part - 1e-12) return values[k];
  }
  return values[order.at(-1)];
}
