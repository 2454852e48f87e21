package server

import (
	"crypto/tls"
	"net"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/dotring/dotring/gateway/access"
	"github.com/dotring/dotring/gateway/internal/config"
	"github.com/dotring/dotring/ringsvc/mtls"
)

// secure reads certificates and access rules, where the configuration names them.
func (s *Server) secure() (err error) {
	if s.cfg.TLS.Any() {
		if s.tls, err = mtls.Load(s.cfg.TLS, time.Now, s.log); err != nil {
			return err
		}
	}
	if s.cfg.AccessFile != "" {
		s.guard, err = access.Load(s.cfg.AccessFile, time.Now, s.log)
	}
	return err
}

// nodeCredentials are those for storage nodes.
func (s *Server) nodeCredentials() credentials.TransportCredentials {
	if s.tls == nil {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(s.tls.Client(mtls.RoleNode))
}

// publicCredentials are those of the public gRPC API, whose clients have certificates, whoever for.
func (s *Server) publicCredentials() credentials.TransportCredentials {
	if s.tls == nil {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(s.tls.Server())
}

// secureListener puts TLS on the HTTP port, for clients without certificates, and on an admin port that other machines
// reach, for clients with any. gRPC does it by itself.
func (s *Server) secureListener(flag, addr string, l net.Listener) net.Listener {
	if s.tls == nil || flag == "grpc-addr" {
		return l
	}
	c := s.tls.Public()
	if flag == "admin-addr" {
		if config.Loopback(addr) {
			return l
		}
		c = s.tls.Server()
	}
	c.NextProtos = []string{"h2", "http/1.1"}
	return tls.NewListener(l, c)
}
