package ec2sim

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// bucket is one S3 bucket with versioning on. Everything in it is in memory.
type bucket struct {
	region  string
	folder  string
	objects map[string][]object // versions, oldest first
	seen    map[string]fileMark // key → what the folder's file looked like when it was read
}

type object struct {
	version  string
	etag     string
	data     []byte
	modified time.Time
}

type fileMark struct {
	size int64
	time time.Time
}

// PutObject writes a new version of an object, and gives its id. The bucket is
// made when it does not exist. Ids depend on nothing but bucket, key, data and
// the number of versions before, so that a manifest can name one.
func (s *Sim) PutObject(bucket, key string, data []byte) (versionID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buckets[bucket] == nil {
		s.putBucket(bucket, Bucket{})
	}
	return s.buckets[bucket].put(bucket, key, bytes.Clone(data), time.Now())
}

// DeleteObject removes an object with all its versions. An object of a folder
// comes back when its file is still there.
func (s *Sim) DeleteObject(bucket, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.buckets[bucket]; b != nil {
		delete(b.objects, key)
		delete(b.seen, key)
	}
}

// putBucket makes a bucket be what its configuration says. Callers hold s.mu.
func (s *Sim) putBucket(name string, want Bucket) {
	b := s.buckets[name]
	if b == nil {
		b = &bucket{objects: map[string][]object{}, seen: map[string]fileMark{}}
		s.buckets[name] = b
	}
	b.folder, b.region = want.Folder, want.Region
	if b.region == "" {
		b.region = s.cfg.Region
	}
	for key, values := range want.Objects {
		if have := b.objects[key]; len(have) > 0 && len(values) > 0 {
			last := values[len(values)-1]
			if string(have[len(have)-1].data) == last {
				continue
			}
			values = Versions{last}
		}
		for _, v := range values {
			b.put(name, key, []byte(v), time.Now())
		}
	}
}

func (b *bucket) put(bucketName, key string, data []byte, modified time.Time) string {
	id := sha256.New()
	fmt.Fprintf(id, "%s\x00%s\x00%d\x00", bucketName, key, len(b.objects[key]))
	id.Write(data)
	sum := md5.Sum(data)
	o := object{
		version:  base64.RawURLEncoding.EncodeToString(id.Sum(nil))[:32], // AWS's have 32 characters too
		etag:     `"` + hex.EncodeToString(sum[:]) + `"`,
		data:     data,
		modified: modified.UTC().Truncate(time.Second),
	}
	b.objects[key] = append(b.objects[key], o)
	return o.version
}

// versions gives an object's versions, oldest first, after a look at the
// folder: a file that changed since the last look is a new version, one that
// is gone takes its object away. Callers hold Sim.mu.
func (b *bucket) versions(bucketName, key string) []object {
	if b.folder == "" || !filepath.IsLocal(filepath.FromSlash(key)) {
		return b.objects[key]
	}
	file := filepath.Join(b.folder, filepath.FromSlash(key))
	st, err := os.Stat(file)
	if err != nil || !st.Mode().IsRegular() {
		if _, ours := b.seen[key]; ours {
			delete(b.objects, key)
			delete(b.seen, key)
		}
		return b.objects[key]
	}
	mark := fileMark{st.Size(), st.ModTime()}
	if b.seen[key] == mark {
		return b.objects[key]
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return b.objects[key]
	}
	b.seen[key] = mark
	if have := b.objects[key]; len(have) == 0 || !bytes.Equal(have[len(have)-1].data, data) {
		b.put(bucketName, key, data, st.ModTime())
	}
	return b.objects[key]
}

// keys are all keys with a prefix, sorted. Callers hold Sim.mu.
func (b *bucket) keys(prefix string) []string {
	keys := maps.Clone(b.objects)
	if b.folder != "" {
		_ = filepath.WalkDir(b.folder, func(path string, d fs.DirEntry, err error) error {
			if rel, relErr := filepath.Rel(b.folder, path); err == nil && relErr == nil && d.Type().IsRegular() {
				keys[filepath.ToSlash(rel)] = nil
			}
			return nil
		})
	}
	return slices.DeleteFunc(slices.Sorted(maps.Keys(keys)), func(k string) bool { return !strings.HasPrefix(k, prefix) })
}
