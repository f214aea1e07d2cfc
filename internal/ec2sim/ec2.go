package ec2sim

import (
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
)

// The Query protocol as EC2 speaks it: POST / with a form that names the
// Action, XML back.
// https://smithy.io/2.0/aws/protocols/aws-ec2-query-protocol.html

var ec2Words = vocabulary{
	internal:  apiError{status: http.StatusInternalServerError, code: "InternalError", message: "An internal error has occurred"},
	throttled: apiError{status: http.StatusServiceUnavailable, code: "RequestLimitExceeded", message: "Request limit exceeded."},
	denied: apiError{status: http.StatusForbidden, code: "UnauthorizedOperation",
		message: "You are not authorized to perform this operation. %s"},
	unsigned:   apiError{status: http.StatusBadRequest, code: "MissingParameter", message: "The request must contain the parameter AWSAccessKeyId"},
	unknownKey: apiError{status: http.StatusUnauthorized, code: "AuthFailure", message: "AWS was not able to validate the provided access credentials"},
	badToken:   apiError{status: http.StatusUnauthorized, code: "AuthFailure", message: "AWS was not able to validate the provided access credentials"},
	expired:    apiError{status: http.StatusBadRequest, code: "RequestExpired", message: "Request has expired."},
	badSignature: apiError{status: http.StatusForbidden, code: "SignatureDoesNotMatch",
		message: "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."},
	skewed: apiError{status: http.StatusBadRequest, code: "RequestExpired", message: "Request has expired."},
}

func isQuery(r *http.Request) bool {
	return r.Method == http.MethodPost && strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded")
}

// queryOperation is operation for this protocol: the form stands in for the body.
type queryOperation func(c *call, form url.Values) func() *apiError

func readQuery(table func() map[string]queryOperation) func(*call) func() *apiError {
	return func(c *call) func() *apiError {
		form, err := url.ParseQuery(string(c.body))
		c.operation = form.Get("Action")
		op, ok := table()[c.operation]
		switch {
		case err != nil:
			return func() *apiError {
				return &apiError{status: http.StatusBadRequest, code: "MalformedQueryString", message: err.Error()}
			}
		case !ok:
			return func() *apiError {
				return &apiError{status: http.StatusBadRequest, code: "InvalidAction",
					message: "ec2sim does not serve " + c.service.name + ":" + c.operation}
			}
		}
		return op(c, form)
	}
}

func failEC2(c *call, err *apiError) {
	type fault struct {
		Code    string `xml:"Code"`
		Message string `xml:"Message"`
	}
	c.replyXML(err.status, struct {
		XMLName   xml.Name `xml:"Response"`
		Errors    []fault  `xml:"Errors>Error"`
		RequestID string   `xml:"RequestID"`
	}{Errors: []fault{{err.code, err.message}}, RequestID: c.id})
}

// replyXML writes an XML document.
func (c *call) replyXML(status int, doc any) {
	body, err := xml.Marshal(doc)
	if err != nil {
		panic(err) // only our own structs come here
	}
	c.reply(status, "text/xml;charset=UTF-8", append([]byte(xml.Header), body...))
}

func ec2Operations() map[string]queryOperation {
	return map[string]queryOperation{
		"DescribeTags": describeTags,
	}
}

type ec2Tag struct {
	ResourceID   string `xml:"resourceId"`
	ResourceType string `xml:"resourceType"`
	Key          string `xml:"key"`
	Value        string `xml:"value"`
}

// filter is one condition; any of its values will do. Values may hold * and ?.
type filter struct {
	name   string
	values []string
}

// describeTags answers for the one resource there is, the instance.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeTags.html
func describeTags(c *call, form url.Values) func() *apiError {
	filters := readFilters(form)
	for _, f := range filters {
		if f.name == "resource-id" {
			c.resources = append(c.resources, f.values...)
		}
	}
	return func() *apiError {
		cfg := c.sim.Config()
		tags := []ec2Tag{}
		for _, key := range slices.Sorted(maps.Keys(cfg.Tags)) {
			fields := map[string]string{
				"resource-id": cfg.InstanceID, "resource-type": "instance",
				"key": key, "tag-key": key, "value": cfg.Tags[key], "tag-value": cfg.Tags[key], "tag:" + key: cfg.Tags[key],
			}
			keep := !c.hidden(cfg.InstanceID)
			for _, f := range filters {
				known := strings.HasPrefix(f.name, "tag:")
				if _, ok := fields[f.name]; !ok && !known {
					return &apiError{status: http.StatusBadRequest, code: "InvalidParameterValue",
						message: fmt.Sprintf("The filter '%s' is invalid", f.name)}
				}
				keep = keep && slices.ContainsFunc(f.values, func(pattern string) bool { return like(pattern, fields[f.name]) })
			}
			if keep {
				tags = append(tags, ec2Tag{cfg.InstanceID, "instance", key, cfg.Tags[key]})
			}
		}
		c.replyXML(http.StatusOK, struct {
			XMLName   xml.Name `xml:"http://ec2.amazonaws.com/doc/2016-11-15/ DescribeTagsResponse"`
			RequestID string   `xml:"requestId"`
			Tags      []ec2Tag `xml:"tagSet>item"`
		}{RequestID: c.id, Tags: tags})
		return nil
	}
}

func readFilters(form url.Values) []filter {
	var filters []filter
	for i := 1; form.Has(fmt.Sprintf("Filter.%d.Name", i)); i++ {
		f := filter{name: form.Get(fmt.Sprintf("Filter.%d.Name", i))}
		for j := 1; form.Has(fmt.Sprintf("Filter.%d.Value.%d", i, j)); j++ {
			f.values = append(f.values, form.Get(fmt.Sprintf("Filter.%d.Value.%d", i, j)))
		}
		filters = append(filters, f)
	}
	return filters
}

// like matches a filter's value, where * and ? stand for any text and any character.
func like(pattern, text string) bool {
	// path.Match stops * at slashes, which tags may hold and newlines may not.
	hide := strings.NewReplacer("/", "\n", "[", `\[`)
	ok, err := path.Match(hide.Replace(pattern), strings.ReplaceAll(text, "/", "\n"))
	return ok && err == nil
}
