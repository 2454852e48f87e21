package memory

import (
	"bytes"
	"hash/fnv"
)

// node is one node of an immutable treap: ordered by key, and a heap by a priority that is a hash of the key. The
// shape depends only on the set of keys, so a run repeats exactly. Updates copy the path from the root, O(log n)
// expected. Seidel and Aragon, Randomized Search Trees, 1996.
type node struct {
	key, value  []byte
	prio        uint64
	left, right *node
}

func priority(key []byte) uint64 {
	h := fnv.New64a()
	h.Write(key) // a hash never fails
	// FNV leaves keys that differ in the last byte close together; the finalizer of MurmurHash3 spreads them.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

func find(n *node, key []byte) *node {
	for n != nil {
		switch c := bytes.Compare(key, n.key); {
		case c < 0:
			n = n.left
		case c > 0:
			n = n.right
		default:
			return n
		}
	}
	return nil
}

// insert returns the tree with key set to value, both copied.
func insert(root *node, key, value []byte) *node {
	if find(root, key) != nil {
		return replace(root, key, bytes.Clone(value))
	}
	fresh := &node{key: append([]byte{}, key...), value: append([]byte{}, value...), prio: priority(key)}
	return add(root, fresh)
}

// replace copies the path to key, which exists.
func replace(n *node, key, value []byte) *node {
	m := *n
	switch c := bytes.Compare(key, n.key); {
	case c < 0:
		m.left = replace(n.left, key, value)
	case c > 0:
		m.right = replace(n.right, key, value)
	default:
		m.value = value
	}
	return &m
}

// add inserts fresh, whose key is not in the tree.
func add(n, fresh *node) *node {
	if n == nil {
		return fresh
	}
	if fresh.prio > n.prio {
		m := *fresh
		m.left, m.right = split(n, fresh.key)
		return &m
	}
	m := *n
	if bytes.Compare(fresh.key, n.key) < 0 {
		m.left = add(n.left, fresh)
	} else {
		m.right = add(n.right, fresh)
	}
	return &m
}

// split parts the tree into keys below key and keys above it; key itself is not in the tree.
func split(n *node, key []byte) (below, above *node) {
	if n == nil {
		return nil, nil
	}
	m := *n
	if bytes.Compare(n.key, key) < 0 {
		m.right, above = split(n.right, key)
		return &m, above
	}
	below, m.left = split(n.left, key)
	return below, &m
}

// remove returns the tree without key.
func remove(n *node, key []byte) *node {
	if find(n, key) == nil {
		return n
	}
	return removePresent(n, key)
}

func removePresent(n *node, key []byte) *node {
	m := *n
	switch c := bytes.Compare(key, n.key); {
	case c < 0:
		m.left = removePresent(n.left, key)
	case c > 0:
		m.right = removePresent(n.right, key)
	default:
		return join(n.left, n.right)
	}
	return &m
}

// join puts two trees together, all keys of a being below those of b.
func join(a, b *node) *node {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.prio > b.prio:
		m := *a
		m.right = join(a.right, b)
		return &m
	default:
		m := *b
		m.left = join(a, b.left)
		return &m
	}
}

// walk calls fn in order for the nodes with from <= key < to, nil bounds being open, until fn says no more.
func walk(n *node, from, to []byte, fn func(*node) (bool, error)) (more bool, err error) {
	if n == nil {
		return true, nil
	}
	afterFrom := from == nil || bytes.Compare(n.key, from) >= 0
	beforeTo := to == nil || bytes.Compare(n.key, to) < 0
	if afterFrom {
		if more, err := walk(n.left, from, to, fn); err != nil || !more {
			return false, err
		}
	}
	if afterFrom && beforeTo {
		if more, err := fn(n); err != nil || !more {
			return false, err
		}
	}
	if beforeTo {
		return walk(n.right, from, to, fn)
	}
	return true, nil
}
