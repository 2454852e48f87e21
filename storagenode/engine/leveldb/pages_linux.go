package leveldb

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// dropPages has the next reads of f come from the disk, and not from the system's memory.
func dropPages(f pageCached) error {
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("drop cached pages: %w", err)
	}
	return nil
}
