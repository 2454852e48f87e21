package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// Run serves until ctx ends, then drains: /readyz fails at once, requests are taken for the drain delay, then idle
// connections are closed and those under way end. It returns nil after that, or the first failure of a listener or of
// the node client. Run is called once.
func (s *Server) Run(ctx context.Context) error {
	// What serves outlives ctx until the drain is over.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var running sync.WaitGroup
	// Spans end with what they are of, so that they go last.
	traces, endTraces := context.WithCancel(context.WithoutCancel(ctx))
	defer endTraces()
	failed := make(chan error, 5)
	start := func(what string, run func() error) {
		running.Go(func() {
			if err := run(); err != nil {
				failed <- fmt.Errorf("%s: %w", what, err)
			}
		})
	}
	start("tracing", func() error { return s.tracer.Run(traces) })
	start("node client", func() error { return s.client.Run(work) })
	start("http", func() error { return served(s.http.Serve(s.httpListener)) })
	start("admin", func() error { return served(s.admin.Serve(s.adminListener)) })
	start("grpc", func() error { return served(s.grpc.Serve(s.grpcListener)) })
	s.log.Info().Str("http", s.HTTPAddr()).Str("grpc", s.GRPCAddr()).Str("admin", s.AdminAddr()).
		Strs("storage_nodes", s.cfg.StorageNodes).Str("version", Version()).Msg("gateway serves")
	var failure error
	select {
	case <-ctx.Done():
		failure = s.drain(ctx, failed)
	case <-s.quit:
	case failure = <-failed:
	}
	s.draining.Store(true)
	failure = errors.Join(failure, s.finish(work))
	stop()
	s.client.Close()
	endTraces()
	running.Wait()
	s.log.Info().Msg("gateway ended")
	return failure
}

func served(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, grpc.ErrServerStopped) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// drain fails /readyz and goes on serving for the drain delay, so that balancers notice before connections are refused.
func (s *Server) drain(ctx context.Context, failed <-chan error) error {
	s.draining.Store(true)
	s.log.Info().Dur("drain_delay", s.cfg.DrainDelay).AnErr("cause", context.Cause(ctx)).Msg("gateway drains")
	delay := time.NewTimer(s.cfg.DrainDelay)
	defer delay.Stop()
	select {
	case <-delay.C:
		return nil
	case <-s.quit:
		return nil
	case err := <-failed:
		return err
	}
}

// finish takes no more requests, lets those under way end, and cuts off what has not ended in time. The admin port goes
// last, so that the end can be watched.
func (s *Server) finish(work context.Context) error {
	ctx, cancel := context.WithTimeout(work, finishTime)
	defer cancel()
	go func() {
		// Close cuts the wait short.
		select {
		case <-s.quit:
			cancel()
		case <-ctx.Done():
		}
	}()
	var ending sync.WaitGroup
	var httpErr error
	ending.Go(func() { httpErr = shutdown(ctx, s.http) })
	ending.Go(func() {
		ended := make(chan struct{})
		go func() {
			s.grpc.GracefulStop()
			close(ended)
		}()
		select {
		case <-ended:
		case <-ctx.Done():
			s.grpc.Stop()
			<-ended
		}
	})
	ending.Wait()
	// Metrics are read in one piece; a profile that is being taken is not worth waiting for.
	if err := s.admin.Close(); err != nil {
		return errors.Join(httpErr, fmt.Errorf("close admin port: %w", err))
	}
	return httpErr
}

func shutdown(ctx context.Context, srv *http.Server) error {
	err := srv.Shutdown(ctx)
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		err = nil // its time was up: cut off
	}
	if closeErr := srv.Close(); closeErr != nil {
		return errors.Join(err, fmt.Errorf("close http port: %w", closeErr))
	}
	return err
}

// Close releases what New opened and ends a Run that is under way without draining; requests under way are cut off. It
// may be called more than once.
func (s *Server) Close() error {
	s.closing.Do(func() {
		close(s.quit)
		s.closeListeners()
		s.client.Close()
	})
	return nil
}
