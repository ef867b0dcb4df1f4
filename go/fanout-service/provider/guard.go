package provider

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
)

// Guard keeps upstream traffic away from the addresses of our own network: whoever controls a
// provider's name could otherwise have us call the metadata service or the database next door. It
// looks at the address that is dialled, so a name that changes its mind gains nothing.
//
// Refused are loopback, private, shared (CGNAT), link-local, multicast, unspecified, reserved and
// documentation addresses, the metadata services of the clouds, and all of these written as IPv6.
type Guard struct {
	allowed    []netip.Prefix
	configured map[string]bool // "host:port" of literal addresses and localhost
}

var errNotAllowed = errors.New("the address is not allowed")

// NewGuard returns a guard that lets the networks in allowed pass, and of the configured URLs (the
// base URLs and proxies an operator wrote) those whose host is a literal address or localhost, for
// that port alone. A name in a configured URL that resolves to a refused address stays refused: its
// network has to be allowed.
func NewGuard(allowed []netip.Prefix, configured []*url.URL) *Guard {
	g := &Guard{allowed: allowed, configured: map[string]bool{}}
	for _, each := range configured {
		host, port := strings.ToLower(each.Hostname()), each.Port()
		if port == "" {
			port = "80"
			if each.Scheme == "https" {
				port = "443"
			}
		}
		if _, err := netip.ParseAddr(host); err == nil || isLocalhost(host) {
			g.configured[net.JoinHostPort(host, port)] = true
		}
	}
	return g
}

func isLocalhost(host string) bool {
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// control checks every address that a dial of asked ("host:port") comes to.
func (g *Guard) control(asked string) func(network, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil || !g.allows(asked, to.Addr()) {
			return errNotAllowed
		}
		return nil
	}
}

func (g *Guard) allows(asked string, to netip.Addr) bool {
	if !refused(to) {
		return true
	}
	if g == nil {
		return false
	}
	to = to.WithZone("").Unmap()
	for _, prefix := range g.allowed {
		if prefix.Contains(to) {
			return true
		}
	}
	asked = strings.ToLower(asked)
	if !g.configured[asked] {
		return false
	}
	host, _, err := net.SplitHostPort(asked)
	return err == nil && (!isLocalhost(host) || to.IsLoopback()) // a literal address is dialled as it stands
}

// special are the refused networks that netip has no name for (RFC 6890 and the clouds' own).
var special = prefixes(
	"0.0.0.0/8",                                         // this network
	"100.64.0.0/10",                                     // shared address space
	"168.63.129.16/32",                                  // Azure's metadata, on a public address
	"192.0.0.0/24",                                      // protocol assignments, Oracle's metadata
	"192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", // documentation
	"198.18.0.0/15",  // benchmarks
	"240.0.0.0/4",    // reserved, broadcast
	"::/96",          // IPv4-compatible, long gone
	"64:ff9b:1::/48", // translation inside a network
	"100::/64",       // discard
	"2001::/32",      // Teredo
	"2001:db8::/32",  // documentation
	"fec0::/10",      // site-local
)

var (
	nat64   = netip.MustParsePrefix("64:ff9b::/96")
	sixTo4  = netip.MustParsePrefix("2002::/16")
	inNAT64 = 12 // where the IPv4 address stands in each
	in6To4  = 2
)

// refused says whether nobody has business at an address unless an operator says so.
func refused(a netip.Addr) bool {
	a = a.WithZone("").Unmap()
	switch {
	case !a.IsValid(), a.IsUnspecified(), a.IsLoopback(), a.IsPrivate(), a.IsLinkLocalUnicast(), a.IsMulticast():
		return true
	case nat64.Contains(a):
		return refused(embedded(a, inNAT64))
	case sixTo4.Contains(a):
		return refused(embedded(a, in6To4))
	}
	for _, prefix := range special {
		if prefix.Contains(a) {
			return true
		}
	}
	return false
}

func embedded(a netip.Addr, at int) netip.Addr {
	bytes := a.As16()
	return netip.AddrFrom4([4]byte(bytes[at : at+4]))
}

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		out[i] = netip.MustParsePrefix(text)
	}
	return out
}
