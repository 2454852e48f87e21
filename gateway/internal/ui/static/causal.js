// Clocks and dots, as the answer of an inspection has them. A clock is {actor: counter}; a dot is one write; a clock covers a
// dot when its counter for the actor is as high. Counters pass 2^53, and are BigInts here.

export function clockOf(replica) {
  return new Map(replica.clock.map((c) => [c.actor, BigInt(c.counter)]));
}

function dotName(sibling) {
  return sibling.actor + ":" + sibling.counter;
}

export function covers(clock, actor, counter) {
  return (clock.get(actor) || 0n) >= counter;
}

// compare tells how clock a stands to clock b: "equal", "before", "after" or "concurrent".
export function compare(a, b) {
  const actors = [...new Set([...a.keys(), ...b.keys()])];
  const less = actors.some((x) => (a.get(x) || 0n) < (b.get(x) || 0n));
  const more = actors.some((x) => (a.get(x) || 0n) > (b.get(x) || 0n));
  return less ? (more ? "concurrent" : "before") : (more ? "after" : "equal");
}

// merge returns the dots of all replicas by name, each with who holds it, and whether it is live: a replica whose clock
// covers a dot that it does not hold has seen it superseded.
export function merge(replicas) {
  const dots = new Map();
  for (const r of replicas) {
    for (const s of r.siblings) {
      const name = dotName(s);
      if (!dots.has(name)) dots.set(name, { name, actor: s.actor, counter: BigInt(s.counter), sibling: s, on: [], live: true });
      dots.get(name).on.push(r.name);
    }
  }
  for (const dot of dots.values()) {
    dot.live = replicas.every((r) => dot.on.includes(r.name) || !covers(clockOf(r), dot.actor, dot.counter));
  }
  return dots;
}

// standing says in words how a replica's record stands to the merge of all.
export function standing(replica, dots) {
  const clock = clockOf(replica);
  const lacks = [...dots.values()].filter((d) => d.live && !covers(clock, d.actor, d.counter)).length;
  const stale = [...dots.values()].filter((d) => !d.live && d.on.includes(replica.name)).length;
  const parts = [];
  if (lacks) parts.push("lacks " + lacks);
  if (stale) parts.push("holds " + stale + " superseded");
  return parts.join(", ") || "in step";
}

// versions returns the different clocks there are, each with the names of the replicas that have it, older ones first.
export function versions(replicas) {
  const found = [];
  for (const r of replicas) {
    const clock = clockOf(r);
    const same = found.find((v) => compare(v.clock, clock) === "equal");
    if (same) same.names.push(r.name);
    else found.push({ clock, names: [r.name] });
  }
  const weight = (v) => [...v.clock.values()].reduce((a, b) => a + b, 0n);
  return found.sort((a, b) => (weight(a) < weight(b) ? -1 : weight(a) > weight(b) ? 1 : 0));
}
