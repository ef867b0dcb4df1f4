package provider

import (
	"net/netip"
	"net/url"
	"testing"
)

func TestNoFormOfAnInnerAddressPasses(t *testing.T) {
	for _, text := range []string{
		"127.0.0.1", "127.8.9.1", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1",
		"169.254.169.254", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192",
		"0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "198.18.0.1", "203.0.113.9",
		"::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "100::1",
		"::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::127.0.0.1",
		"64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808",
		"2002:7f00:1::1", "2002:a9fe:a9fe::", "2002:c0a8:101::", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
	} {
		if !refused(netip.MustParseAddr(text)) {
			t.Errorf("%s passes", text)
		}
	}
	for _, text := range []string{
		"8.8.8.8", "1.1.1.1", "172.15.0.1", "172.32.0.1", "100.63.255.255", "100.128.0.1", "169.253.0.1", "168.63.129.17",
		"2606:4700::1111", "2a00:1450:4001::200e", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1",
	} {
		if refused(netip.MustParseAddr(text)) {
			t.Errorf("%s is refused", text)
		}
	}
	if !refused(netip.Addr{}) {
		t.Error("no address at all passes")
	}
}

func TestLeaveGoesNoFurtherThanItWasGiven(t *testing.T) {
	configured := func(texts ...string) (out []*url.URL) {
		for _, text := range texts {
			parsed, err := url.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, parsed)
		}
		return out
	}
	guard := NewGuard([]netip.Prefix{netip.MustParsePrefix("10.2.0.0/16")},
		configured("http://127.0.0.1:8100/v1", "https://LOCALHOST/v1", "http://[::1]:9/v1", "http://inner.example/v1"))
	for _, row := range []struct {
		asked, to string
		want      bool
	}{
		{"anything.example:443", "8.8.8.8", true},
		{"anything.example:443", "10.2.3.4", true},
		{"anything.example:443", "::ffff:10.2.3.4", true},
		{"anything.example:443", "10.3.3.4", false},
		{"127.0.0.1:8100", "127.0.0.1", true},
		{"127.0.0.1:8101", "127.0.0.1", false},
		{"rebinding.example:8100", "127.0.0.1", false},
		{"localhost:443", "127.0.0.1", true},
		{"localhost:443", "::1", true},
		{"localhost:443", "10.3.0.1", false},
		{"localhost:80", "127.0.0.1", false},
		{"[::1]:9", "::1", true},
		{"inner.example:80", "192.168.0.5", false},
	} {
		if got := guard.allows(row.asked, netip.MustParseAddr(row.to)); got != row.want {
			t.Errorf("%s at %s: %v", row.asked, row.to, got)
		}
	}
}
