package peer

import (
	"errors"
	"fmt"
	"google.golang.org/grpc/credentials/insecure"
	"testing"

	"go.uber.org/goleak"

	"github.com/dotring/dotring/ringsvc/ring"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConnectionsAreSharedBoundedAndClosed(t *testing.T) {
	where := map[ring.NodeID]string{{1}: "127.0.0.1:1"}
	p := New(insecure.NewCredentials(), func(id ring.NodeID) (string, bool) { addr, ok := where[id]; return addr, ok })
	if _, _, err := p.To(ring.NodeID{2}); !errors.Is(err, ErrAway) {
		t.Errorf("an unknown node: %v", err)
	}
	_, first, err := p.To(ring.NodeID{1})
	if err != nil {
		t.Fatal(err)
	}
	_, second, err := p.At("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.conns) != 1 {
		t.Errorf("%d connections to one address", len(p.conns))
	}
	for i := range 2 * connsMax {
		_, done, err := p.At(fmt.Sprintf("127.0.0.1:%d", 1000+i))
		if err != nil {
			t.Fatal(err)
		}
		done()
	}
	if len(p.conns) > connsMax {
		t.Errorf("%d connections, at most %d", len(p.conns), connsMax)
	}
	first()
	second()
	if err := errors.Join(p.Close(), p.Close()); err != nil {
		t.Error(err)
	}
	if _, _, err := p.To(ring.NodeID{1}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
