package layers

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"strings"

	"github.com/amiagent/amiagent/internal/config"
	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/manifest"
)

const (
	// header is the first line of user data that is a manifest.
	header = "#amiagent"
	// mediaType marks a part of MIME user data that is a manifest; cloud-init passes over it.
	mediaType = "text/x-amiagent"
)

// userData gives the manifests in the instance's user data: all of it, parts of
// it, or what a pointer in it names. User data for others is no layer.
func (r *reader) userData(ctx context.Context, ref config.Layer) ([]Document, error) {
	raw, err := r.opt.UserData(ctx)
	if err != nil {
		return nil, diag.WithHint(fmt.Errorf("cannot read the user data: %w", err), "%s", diag.Hint(err))
	}
	manifests, err := FromUserData(raw)
	if err != nil {
		return nil, err
	}
	var docs []Document
	for i, data := range manifests {
		doc := Document{Source: config.UserData, File: config.UserData, Data: data, Origin: config.UserData, Varies: true}
		if len(manifests) > 1 {
			doc.File = fmt.Sprintf("%s part %d", config.UserData, i+1)
		}
		if err := r.verify(doc, ref.Digest); err != nil {
			return nil, err
		}
		refs, err := pointer(doc)
		if err != nil {
			return nil, err
		}
		if refs == nil {
			if err := r.signedUserData(doc); err != nil {
				return nil, err
			}
			docs = append(docs, doc)
			continue
		}
		for _, ref := range refs {
			more, err := r.layer(ctx, ref)
			if err != nil {
				return nil, err
			}
			for i := range more {
				more[i].Varies = true
			}
			docs = append(docs, more...)
		}
	}
	if len(docs) == 0 && len(raw) > 0 {
		r.notes = append(r.notes, fmt.Sprintf("the user data holds no manifest: its first line is not %s and no part of it is %s", header, mediaType))
	}
	return docs, nil
}

// pointer reads a document of user data that only names layers, since user data
// holds 16 KB. Each must have a digest: user data is what says which bytes to trust.
func pointer(doc Document) ([]config.Layer, error) {
	var list diag.List
	root := decode.Parse(doc.File, doc.Data, &list)
	if root == nil {
		return nil, list.Err()
	}
	var p struct {
		Version int            `yaml:"amiagent"`
		Layers  []config.Layer `yaml:"layers"`
	}
	at := decode.At(&list, doc.File, root, "")
	keys, _ := decode.Pairs(root, at)
	points := false
	for _, k := range keys {
		points = points || k.Value == "layers"
	}
	if !points {
		return nil, nil // a manifest, whose faults are found later
	}
	decode.Into(root, &p, at)
	if p.Version != manifest.Version {
		at.Field("amiagent").Errorf("must be %d", manifest.Version)
	}
	for i, l := range p.Layers {
		here := at.Field("layers").Index(i)
		if l.Digest == "" {
			here.Err(diag.WithHint(errors.New("a layer named by user data needs a digest"), "write {source: ..., digest: sha256:HEX}"))
		}
		if l.Source == config.UserData {
			here.Errorf("user data cannot point to itself")
		}
	}
	return p.Layers, list.Err()
}

// FromUserData finds the manifests in user data, which may be one, or MIME with
// parts for several readers; any of it may be gzipped.
func FromUserData(raw []byte) ([][]byte, error) {
	data, err := gunzip(raw)
	if err != nil {
		return nil, err
	}
	first, _, _ := bytes.Cut(data, []byte("\n"))
	if string(bytes.TrimRight(first, " \t\r")) == header {
		return [][]byte{data}, nil
	}
	head := strings.ToLower(string(data[:min(len(data), 512)]))
	if !strings.HasPrefix(head, "content-type:") && !strings.HasPrefix(head, "mime-version:") {
		return nil, nil
	}
	msg, err := mail.ReadMessage(bytes.NewReader(data))
	if err != nil {
		return nil, unreadable(err)
	}
	return parts(msg.Header.Get("Content-Type"), msg.Header.Get("Content-Transfer-Encoding"), msg.Body, 0)
}

func parts(contentType, encoding string, body io.Reader, depth int) ([][]byte, error) {
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil || depth > 4 {
		return nil, unreadable(fmt.Errorf("content type %q", contentType))
	}
	if strings.EqualFold(encoding, "base64") {
		body = base64.NewDecoder(base64.StdEncoding, body)
	}
	switch {
	case kind == mediaType:
		b, err := io.ReadAll(io.LimitReader(body, manifest.MaxBytes+1))
		if err != nil {
			return nil, unreadable(err)
		}
		b, err = gunzip(b)
		return [][]byte{b}, err
	case !strings.HasPrefix(kind, "multipart/"):
		return nil, nil
	}
	whole, err := io.ReadAll(body)
	if err != nil {
		return nil, unreadable(err)
	}
	// The reader takes a text that ends early for one that ends.
	if end := "--" + params["boundary"] + "--"; !bytes.Contains(whole, []byte(end)) {
		return nil, unreadable(fmt.Errorf("its last boundary %s is missing", end))
	}
	var all [][]byte
	for mr := multipart.NewReader(bytes.NewReader(whole), params["boundary"]); ; {
		p, err := mr.NextPart()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, unreadable(err)
		}
		ct := p.Header.Get("Content-Type")
		if ct == "" {
			ct = "text/plain"
		}
		more, err := parts(ct, p.Header.Get("Content-Transfer-Encoding"), p, depth+1)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
}

func gunzip(b []byte) ([]byte, error) {
	if len(b) < 2 || b[0] != 0x1f || b[1] != 0x8b {
		return b, nil
	}
	zr, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, unreadable(err)
	}
	out, err := io.ReadAll(io.LimitReader(zr, manifest.MaxBytes+1))
	if err != nil {
		return nil, unreadable(err)
	}
	if len(out) > manifest.MaxBytes {
		return nil, unreadable(fmt.Errorf("it unpacks to more than %d bytes", manifest.MaxBytes))
	}
	return out, nil
}

func unreadable(err error) error {
	return diag.WithHint(fmt.Errorf("cannot read the user data: %w", err),
		"user data is a manifest whose first line is %s, or MIME with a part of type %s; gzip is accepted", header, mediaType)
}
