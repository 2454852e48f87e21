package node

import (
	"crypto/tls"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/dotring/dotring/ringsvc/mtls"
)

// serverCredentials lets in other nodes and gateways, and nobody else who has a certificate of the cluster.
func (n *Node) serverCredentials() credentials.TransportCredentials {
	if n.tls == nil {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(n.tls.Server(mtls.RoleNode, mtls.RoleGateway))
}

// clientCredentials are those for other nodes.
func (n *Node) clientCredentials() credentials.TransportCredentials {
	if n.tls == nil {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(n.tls.Client(mtls.RoleNode))
}

// secureAdmin asks those who reach the admin port from other machines for any certificate of the cluster's authorities.
func (n *Node) secureAdmin(l net.Listener) net.Listener {
	if host, err := splitAddr(n.cfg.AdminAddr); n.tls == nil || err == nil && isLoopback(host) {
		return l
	}
	c := n.tls.Server()
	c.NextProtos = []string{"http/1.1"}
	return tls.NewListener(l, c)
}
