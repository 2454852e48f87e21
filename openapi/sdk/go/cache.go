package dotring

import (
	"container/list"
	"sync"
)

// cache holds the values that were read last, up to a number of bytes. Nothing leaves it without being revalidated by ETag.
// Safe for concurrent use; a nil cache holds nothing.
type cache struct {
	mu    sync.Mutex
	limit int
	size  int
	used  *list.List // of *entry, newest first
	byKey map[string]*list.Element
}

type entry struct {
	key   string
	value Value
}

// overhead is about what an entry costs beside its strings.
const overhead = 256

func (e *entry) size() int {
	return overhead + len(e.key) + len(e.value.Data) + len(e.value.ContentType)
}

func newCache(limit int) *cache {
	if limit <= 0 {
		return nil
	}
	return &cache{limit: limit, used: list.New(), byKey: map[string]*list.Element{}}
}

func (c *cache) get(key string) (Value, bool) {
	if c == nil {
		return Value{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.byKey[key]
	if !ok {
		return Value{}, false
	}
	c.used.MoveToFront(el)
	return el.Value.(*entry).value, true
}

// put replaces what is held of a key; a value without ETag only removes it.
func (c *cache) put(key string, v Value) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.byKey[key]; ok {
		c.remove(el)
	}
	e := &entry{key: key, value: v}
	if v.ETag == "" || e.size() > c.limit {
		return
	}
	c.byKey[key], c.size = c.used.PushFront(e), c.size+e.size()
	for c.size > c.limit {
		c.remove(c.used.Back())
	}
}

func (c *cache) remove(el *list.Element) {
	e := c.used.Remove(el).(*entry)
	delete(c.byKey, e.key)
	c.size -= e.size()
}
