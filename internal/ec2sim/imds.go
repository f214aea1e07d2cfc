package ec2sim

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// versions are the dated paths of the metadata service, as GET / lists them.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
var versions = strings.Fields(`1.0 2007-01-19 2007-03-01 2007-08-29 2007-10-10 2007-12-15 2008-02-01
	2008-09-01 2009-04-04 2011-01-01 2011-05-01 2012-01-12 2014-02-25 2014-11-05 2015-10-20 2016-04-19
	2016-06-30 2016-09-02 2018-03-28 2018-08-17 2018-09-24 2019-10-01 2020-10-27 2021-01-03 2021-03-23
	2021-07-15 2022-07-09 2022-09-24 2024-04-11 latest`)

const (
	tokenHeader = "X-Aws-Ec2-Metadata-Token"
	ttlHeader   = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
	maxTTL      = 21600 // seconds
)

// imdsWords holds what faults need; the metadata service has no error codes.
var imdsWords = vocabulary{
	internal:  apiError{status: http.StatusInternalServerError},
	throttled: apiError{status: http.StatusServiceUnavailable},
	denied:    apiError{status: http.StatusForbidden},
}

var notFound = &apiError{status: http.StatusNotFound}

// isIMDSPath tells whether a path belongs to the metadata service when it
// shares its address with the APIs.
func isIMDSPath(path string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return first == "" || slices.Contains(versions, first)
}

func readIMDS(c *call) func() *apiError {
	path := c.r.URL.Path
	c.resources = []string{path}
	version, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	kind, _, _ := strings.Cut(rest, "/")
	switch {
	case rest == "api/token":
		c.operation = "token"
		return func() *apiError { return c.issueToken(version) }
	case kind == "":
		c.operation = "versions"
	default:
		c.operation = kind
	}
	return func() *apiError { return c.getMetadata(version, rest) }
}

// hasToken lets a call pass that carries a live session token, and the call
// that asks for one.
func hasToken(c *call) *apiError {
	if c.operation == "token" {
		return nil
	}
	c.sim.mu.Lock()
	end, ok := c.sim.tokens[c.r.Header.Get(tokenHeader)]
	c.sim.mu.Unlock()
	if !ok || !time.Now().Before(end) {
		return &apiError{status: http.StatusUnauthorized}
	}
	return nil
}

// issueToken answers PUT /latest/api/token. Dated paths are refused, and so is
// a request that came through a proxy.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
func (c *call) issueToken(version string) *apiError {
	ttl, err := strconv.Atoi(c.r.Header.Get(ttlHeader))
	switch {
	case version != "latest" || c.r.Header.Get("X-Forwarded-For") != "":
		return &apiError{status: http.StatusForbidden}
	case c.r.Method != http.MethodPut:
		c.w.Header().Set("Allow", "OPTIONS, PUT")
		return &apiError{status: http.StatusMethodNotAllowed}
	case err != nil || ttl < 1 || ttl > maxTTL:
		return &apiError{status: http.StatusBadRequest}
	case c.fault.Do == Absent:
		return notFound
	}
	token := base64.URLEncoding.EncodeToString(random(42))
	c.sim.mu.Lock()
	c.sim.tokens[token] = time.Now().Add(time.Duration(ttl) * time.Second)
	c.sim.mu.Unlock()
	c.w.Header().Set(ttlHeader, strconv.Itoa(ttl))
	c.imdsHeaders()
	c.reply(http.StatusOK, "text/plain", []byte(token))
	return nil
}

// ExpireTokens ends all session tokens handed out so far.
func (s *Sim) ExpireTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for token := range s.tokens {
		s.tokens[token] = time.Now()
	}
}

func (c *call) getMetadata(version, path string) *apiError {
	if c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		c.w.Header().Set("Allow", "GET, HEAD")
		return &apiError{status: http.StatusMethodNotAllowed}
	}
	if c.fault.Do == Absent {
		return notFound
	}
	c.imdsHeaders()
	if version == "" {
		c.reply(http.StatusOK, "text/plain", []byte(strings.Join(versions, "\n")))
		return nil
	}
	if !slices.Contains(versions, version) {
		return notFound
	}
	body, ok := c.sim.metadata().at(version).get(path)
	if !ok {
		return notFound
	}
	kind := "text/plain"
	if path == "user-data" {
		kind = "application/octet-stream"
	}
	c.reply(http.StatusOK, kind, []byte(body))
	return nil
}

func (c *call) imdsHeaders() {
	c.w.Header().Set("Server", "EC2ws")
	c.w.Header().Set("Accept-Ranges", "none")
	c.w.Header().Set("Last-Modified", c.sim.booted.Format(http.TimeFormat))
}

// failIMDS answers with the page that the metadata service gives.
func failIMDS(c *call, err *apiError) {
	c.imdsHeaders()
	title := fmt.Sprintf("%d - %s", err.status, http.StatusText(err.status))
	c.reply(err.status, "text/html", []byte(`<?xml version="1.0" encoding="iso-8859-1"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"
	"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">
 <head>
  <title>`+title+`</title>
 </head>
 <body>
  <h1>`+title+`</h1>
 </body>
</html>
`))
}
