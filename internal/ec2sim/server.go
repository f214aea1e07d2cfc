package ec2sim

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Server is a Sim that listens: the metadata service on one address, the APIs
// on another.
type Server struct {
	sim       *Sim
	imds, api net.Listener
	servers   []*http.Server
}

// Start listens on two ports of the host in addr, usually "127.0.0.1:0". With
// a port other than 0 the metadata service gets it, and the APIs the next one.
func (s *Sim) Start(addr string) (*Server, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %q: %w", addr, err)
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %q: %w", addr, err)
	}
	if n != 0 {
		n++
	}
	return s.Listen(addr, net.JoinHostPort(host, fmt.Sprint(n)))
}

// Listen is Start with both addresses given. In a network namespace of its own
// the metadata service can have EC2's address, 169.254.169.254:80.
func (s *Sim) Listen(imds, api string) (*Server, error) {
	srv := &Server{sim: s}
	var err error
	if srv.imds, err = net.Listen("tcp", imds); err != nil {
		return nil, fmt.Errorf("cannot listen for the metadata service: %w", err)
	}
	if srv.api, err = net.Listen("tcp", api); err != nil {
		srv.imds.Close()
		return nil, fmt.Errorf("cannot listen for the APIs: %w", err)
	}
	srv.serve(srv.imds, func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, serviceNamed("imds")) })
	srv.serve(srv.api, func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, serviceOf(r)) })
	return srv, nil
}

func (s *Server) serve(l net.Listener, h http.HandlerFunc) {
	hs := &http.Server{Handler: h, ReadHeaderTimeout: 30 * time.Second}
	s.servers = append(s.servers, hs)
	go func() { _ = hs.Serve(l) }() // ends with Close
}

// IMDSURL is the metadata service's address, as "http://127.0.0.1:1338".
func (s *Server) IMDSURL() string { return "http://" + s.imds.Addr().String() }

// APIURL is the address of all APIs.
func (s *Server) APIURL() string { return "http://" + s.api.Addr().String() }

// Env is what a process needs in its environment to live on this instance:
// AWS's standard settings, as "NAME=value". It names no credentials, since an
// instance gets its own from the metadata service: variables such as
// AWS_ACCESS_KEY_ID and AWS_PROFILE must not be set beside these.
func (s *Server) Env() []string { return Env(s.IMDSURL(), s.APIURL(), s.sim.Config().Region) }

// Env is Server.Env for a Sim that serves elsewhere.
func Env(imdsURL, apiURL, region string) []string {
	return []string{
		"AWS_EC2_METADATA_SERVICE_ENDPOINT=" + imdsURL + "/", // botocore appends a path to it as it is
		"AWS_ENDPOINT_URL=" + apiURL,
		"AWS_REGION=" + region,
		"AWS_DEFAULT_REGION=" + region,
		"AWS_CONFIG_FILE=/dev/null",             // an instance has neither of these,
		"AWS_SHARED_CREDENTIALS_FILE=/dev/null", // a laptop has
	}
}

// Close stops listening and cuts every connection, also those that hang.
func (s *Server) Close() error {
	var errs []error
	for _, hs := range s.servers {
		errs = append(errs, hs.Close())
	}
	return errors.Join(errs...)
}
