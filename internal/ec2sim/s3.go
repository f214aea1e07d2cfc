package ec2sim

import (
	"encoding/xml"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// S3's REST API, path-style and virtual-host style.
// https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html

var s3Words = vocabulary{
	internal:   apiError{status: http.StatusInternalServerError, code: "InternalError", message: "We encountered an internal error. Please try again."},
	throttled:  apiError{status: http.StatusServiceUnavailable, code: "SlowDown", message: "Please reduce your request rate."},
	denied:     apiError{status: http.StatusForbidden, code: "AccessDenied", message: "%s"},
	unsigned:   apiError{status: http.StatusForbidden, code: "AccessDenied", message: "Access Denied"},
	unknownKey: apiError{status: http.StatusForbidden, code: "InvalidAccessKeyId", message: "The AWS Access Key Id you provided does not exist in our records."},
	badToken:   apiError{status: http.StatusBadRequest, code: "InvalidToken", message: "The provided token is malformed or otherwise invalid."},
	expired:    apiError{status: http.StatusBadRequest, code: "ExpiredToken", message: "The provided token has expired."},
	badSignature: apiError{status: http.StatusForbidden, code: "SignatureDoesNotMatch",
		message: "The request signature we calculated does not match the signature you provided. Check your key and signing method."},
	skewed: apiError{status: http.StatusForbidden, code: "RequestTimeTooSkewed", message: "The difference between the request time and the current time is too large."},
}

// s3Name splits a request into bucket and key. The bucket stands before
// ".s3." or ".localhost" in the host name, else at the start of the path.
func s3Name(r *http.Request) (bucket, key string) {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	path := strings.TrimPrefix(r.URL.Path, "/")
	for _, mark := range []string{".s3.", ".s3-", ".localhost"} {
		if i := strings.Index(host, mark); i > 0 {
			return host[:i], path
		}
	}
	bucket, key, _ = strings.Cut(path, "/")
	return bucket, key
}

func readS3(c *call) func() *apiError {
	bucket, key := s3Name(c.r)
	c.resources = []string{"/" + bucket}
	if key != "" {
		c.resources[0] += "/" + key
	}
	q, read := c.r.URL.Query(), c.r.Method == http.MethodGet
	head := c.r.Method == http.MethodHead
	type answer struct {
		operation string
		when      bool
		run       func(bucket, key string) *apiError
	}
	for _, a := range []answer{
		{"ListBuckets", read && bucket == "", c.listBuckets},
		{"HeadBucket", head && key == "", c.headBucket},
		{"GetBucketLocation", read && key == "" && q.Has("location"), c.bucketLocation},
		{"ListObjectsV2", read && key == "" && q.Get("list-type") == "2", c.listObjects},
		{"GetObject", read && key != "" && !subresource(q), c.getObject},
		{"HeadObject", head && key != "", c.getObject},
	} {
		if a.when {
			c.operation = a.operation
			return func() *apiError { return a.run(bucket, key) }
		}
	}
	c.operation = c.r.Method
	return func() *apiError {
		return &apiError{status: http.StatusNotImplemented, code: "NotImplemented",
			message: "A header or query you provided implies functionality that is not implemented."}
	}
}

// subresource tells whether a query asks for something about an object rather
// than for the object.
func subresource(q map[string][]string) bool {
	for _, name := range []string{"acl", "attributes", "legal-hold", "retention", "tagging", "torrent", "uploadId"} {
		if _, ok := q[name]; ok {
			return true
		}
	}
	return false
}

// failS3 answers a HEAD with the status alone, as S3 does.
func failS3(c *call, err *apiError) {
	c.s3Headers()
	if err.status == http.StatusNotModified {
		c.w.WriteHeader(err.status)
		return
	}
	var b strings.Builder
	b.WriteString(xml.Header + "<Error>")
	fields := [][2]string{{"Code", err.code}, {"Message", err.message}}
	fields = append(append(fields, err.extra...), [2]string{"RequestId", c.id}, [2]string{"HostId", hostID})
	for _, f := range fields {
		b.WriteString("<" + f[0] + ">")
		_ = xml.EscapeText(&b, []byte(f[1]))
		b.WriteString("</" + f[0] + ">")
	}
	b.WriteString("</Error>")
	c.reply(err.status, "application/xml", []byte(b.String()))
}

const hostID = "ec2simec2simec2simec2simec2simec2simec2simec2sim"

func (c *call) s3Headers() {
	h := c.w.Header()
	h.Set("Server", "AmazonS3")
	h.Set("X-Amz-Request-Id", c.id)
	h.Set("X-Amz-Id-2", hostID)
}

// openBucket finds a bucket of the region that the request was signed for. A
// bucket of another region answers with a redirect that names it. Callers hold Sim.mu.
func (c *call) openBucket(name string) (*bucket, *apiError) {
	b := c.sim.buckets[name]
	// A fault without a path hides an object rather than the bucket around it.
	whole := c.fault.Path != "" || c.resources[0] == "/"+name
	if b == nil || c.hidden("/"+name) && whole {
		return nil, &apiError{status: http.StatusNotFound, code: "NoSuchBucket",
			message: "The specified bucket does not exist", extra: [][2]string{{"BucketName", name}}}
	}
	region := [2]string{"X-Amz-Bucket-Region", b.region}
	if got, _ := signature(c.r); got.region != b.region {
		return nil, &apiError{status: http.StatusMovedPermanently, code: "PermanentRedirect",
			message: "The bucket you are attempting to access must be addressed using the specified endpoint. Please send all future requests to this endpoint.",
			extra:   [][2]string{{"Endpoint", name + ".s3." + b.region + ".amazonaws.com"}, {"Bucket", name}},
			headers: [][2]string{region}}
	}
	return b, nil
}

func (c *call) getObject(bucketName, key string) *apiError {
	o, err := c.findObject(bucketName, key)
	if err != nil {
		return err
	}
	h := c.w.Header()
	c.s3Headers()
	h.Set("Accept-Ranges", "bytes")
	h.Set("Etag", o.etag)
	h.Set("Last-Modified", o.modified.Format(http.TimeFormat))
	h.Set("X-Amz-Version-Id", o.version)
	if want := c.r.Header.Get("If-Match"); want != "" && !anyETag(want, o.etag) {
		return &apiError{status: http.StatusPreconditionFailed, code: "PreconditionFailed",
			message: "At least one of the pre-conditions you specified did not hold", extra: [][2]string{{"Condition", "If-Match"}}}
	}
	if not := c.r.Header.Get("If-None-Match"); not != "" && anyETag(not, o.etag) {
		return &apiError{status: http.StatusNotModified, code: "NotModified"}
	}
	size := int64(len(o.data))
	start, end, ranged, ok := byteRange(c.r.Header.Get("Range"), size)
	if !ok {
		return &apiError{status: http.StatusRequestedRangeNotSatisfiable, code: "InvalidRange",
			message: "The requested range is not satisfiable",
			extra:   [][2]string{{"RangeRequested", c.r.Header.Get("Range")}, {"ActualObjectSize", fmt.Sprint(size)}}}
	}
	status := http.StatusOK
	if ranged {
		status = http.StatusPartialContent
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, end-1, size))
	}
	c.reply(status, "binary/octet-stream", o.data[start:end])
	return nil
}

func (c *call) findObject(bucketName, key string) (object, *apiError) {
	c.sim.mu.Lock()
	defer c.sim.mu.Unlock()
	b, err := c.openBucket(bucketName)
	if err != nil {
		return object{}, err
	}
	versions := b.versions(bucketName, key)
	if len(versions) == 0 || c.hidden("/"+bucketName+"/"+key) {
		return object{}, &apiError{status: http.StatusNotFound, code: "NoSuchKey",
			message: "The specified key does not exist.", extra: [][2]string{{"Key", key}}}
	}
	id := c.r.URL.Query().Get("versionId")
	if id == "" {
		return versions[len(versions)-1], nil
	}
	for _, o := range versions {
		if o.version == id {
			return o, nil
		}
	}
	return object{}, &apiError{status: http.StatusNotFound, code: "NoSuchVersion",
		message: "The specified version does not exist.", extra: [][2]string{{"Key", key}, {"VersionId", id}}}
}

func anyETag(list, etag string) bool {
	for want := range strings.SplitSeq(list, ",") {
		if want = strings.TrimSpace(want); want == "*" || strings.Trim(want, `"`) == strings.Trim(etag, `"`) {
			return true
		}
	}
	return false
}

// byteRange reads a Range header for size bytes: [start,end). A header that is
// no single range is as if it were not there, which is what S3 does; ok is
// false for a range that lies outside.
func byteRange(header string, size int64) (start, end int64, ranged, ok bool) {
	spec, isBytes := strings.CutPrefix(header, "bytes=")
	first, last, dash := strings.Cut(spec, "-")
	if !isBytes || !dash {
		return 0, size, false, true
	}
	from, fromErr := strconv.ParseUint(first, 10, 62)
	to, toErr := strconv.ParseUint(last, 10, 62)
	switch {
	case first == "" && toErr == nil: // the last n bytes
		start, end = max(0, size-int64(to)), size
	case fromErr == nil && last == "":
		start, end = int64(from), size
	case fromErr == nil && toErr == nil && from <= to:
		start, end = int64(from), min(int64(to)+1, size)
	default:
		return 0, size, false, true
	}
	return start, end, true, start < end
}

type listBucketsResult struct {
	XMLName xml.Name      `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListAllMyBucketsResult"`
	Owner   string        `xml:"Owner>ID"`
	Buckets []bucketEntry `xml:"Buckets>Bucket"`
}

type bucketEntry struct {
	Name         string
	CreationDate string
}

func (c *call) listBuckets(_, _ string) *apiError {
	c.sim.mu.Lock()
	result := listBucketsResult{Owner: c.sim.cfg.Account}
	for _, name := range slices.Sorted(maps.Keys(c.sim.buckets)) {
		result.Buckets = append(result.Buckets, bucketEntry{name, c.sim.booted.Format(time.RFC3339)})
	}
	c.sim.mu.Unlock()
	c.s3Headers()
	c.replyXML(http.StatusOK, result)
	return nil
}

func (c *call) headBucket(name, _ string) *apiError {
	c.sim.mu.Lock()
	b, err := c.openBucket(name)
	c.sim.mu.Unlock()
	if err != nil {
		return err
	}
	c.s3Headers()
	c.w.Header().Set("X-Amz-Bucket-Region", b.region)
	c.reply(http.StatusOK, "application/xml", nil)
	return nil
}

// bucketLocation answers from any region. us-east-1 has no name here.
func (c *call) bucketLocation(name, _ string) *apiError {
	c.sim.mu.Lock()
	b := c.sim.buckets[name]
	c.sim.mu.Unlock()
	if b == nil || c.hidden("/"+name) {
		return &apiError{status: http.StatusNotFound, code: "NoSuchBucket", message: "The specified bucket does not exist"}
	}
	region := b.region
	if region == "us-east-1" {
		region = ""
	}
	c.s3Headers()
	c.replyXML(http.StatusOK, struct {
		XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ LocationConstraint"`
		Region  string   `xml:",chardata"`
	}{Region: region})
	return nil
}

type listResult struct {
	XMLName               xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListBucketResult"`
	Name                  string
	Prefix                string
	Delimiter             string `xml:",omitempty"`
	KeyCount              int
	MaxKeys               int
	IsTruncated           bool
	NextContinuationToken string `xml:",omitempty"`
	Contents              []listEntry
	CommonPrefixes        []listPrefix
}

type listEntry struct {
	Key          string
	LastModified string
	ETag         string
	Size         int
	StorageClass string
}

type listPrefix struct{ Prefix string }

// listObjects is ListObjectsV2. A continuation token is the last name given.
func (c *call) listObjects(bucketName, _ string) *apiError {
	q := c.r.URL.Query()
	result := listResult{Name: bucketName, Prefix: q.Get("prefix"), Delimiter: q.Get("delimiter"), MaxKeys: 1000}
	if n, err := strconv.Atoi(q.Get("max-keys")); err == nil && n >= 0 && n < result.MaxKeys {
		result.MaxKeys = n
	}
	c.sim.mu.Lock()
	defer c.sim.mu.Unlock()
	b, err := c.openBucket(bucketName)
	if err != nil {
		return err
	}
	after := max(q.Get("continuation-token"), q.Get("start-after"))
	last := ""
	for _, key := range b.keys(result.Prefix) {
		name := key
		if i := strings.Index(key[len(result.Prefix):], result.Delimiter); result.Delimiter != "" && i >= 0 {
			name = key[:len(result.Prefix)+i+len(result.Delimiter)]
		}
		versions := b.versions(bucketName, key)
		if name <= after || name == last || len(versions) == 0 {
			continue
		}
		if result.KeyCount == result.MaxKeys {
			result.IsTruncated, result.NextContinuationToken = true, last
			break
		}
		last = name
		result.KeyCount++
		if name != key {
			result.CommonPrefixes = append(result.CommonPrefixes, listPrefix{name})
			continue
		}
		o := versions[len(versions)-1]
		result.Contents = append(result.Contents, listEntry{key, o.modified.Format(time.RFC3339), o.etag, len(o.data), "STANDARD"})
	}
	c.s3Headers()
	c.replyXML(http.StatusOK, result)
	return nil
}
