package ec2sim

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"
)

// The protocol "AWS JSON 1.1": POST /, the operation in X-Amz-Target, errors
// with their code in __type.
// https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html

// jsonWords are the errors that the services of this protocol share.
var jsonWords = vocabulary{
	internal:   apiError{status: http.StatusInternalServerError, code: "InternalServerError", message: "An internal error occurred"},
	throttled:  apiError{status: http.StatusBadRequest, code: "ThrottlingException", message: "Rate exceeded"},
	denied:     apiError{status: http.StatusBadRequest, code: "AccessDeniedException", message: "%s"},
	unsigned:   apiError{status: http.StatusBadRequest, code: "MissingAuthenticationTokenException", message: "Missing Authentication Token"},
	unknownKey: apiError{status: http.StatusBadRequest, code: "UnrecognizedClientException", message: "The security token included in the request is invalid."},
	badToken:   apiError{status: http.StatusBadRequest, code: "UnrecognizedClientException", message: "The security token included in the request is invalid."},
	expired:    apiError{status: http.StatusBadRequest, code: "ExpiredTokenException", message: "The security token included in the request is expired"},
	badSignature: apiError{status: http.StatusBadRequest, code: "InvalidSignatureException",
		message: "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."},
	skewed: apiError{status: http.StatusBadRequest, code: "InvalidSignatureException",
		message: "Signature expired: the time of the request and the time of the server differ by more than 15 min."},
}

// operation reads its input from a call, names the resources asked for in
// call.resources, and gives what answers. An input that cannot be read is the
// answer's error, so that it comes after those of authorisation.
type operation func(c *call) func() *apiError

func isTarget(prefix string) func(*http.Request) bool {
	return func(r *http.Request) bool { return strings.HasPrefix(r.Header.Get("X-Amz-Target"), prefix+".") }
}

func readJSON(table func() map[string]operation) func(*call) func() *apiError {
	return func(c *call) func() *apiError {
		_, c.operation, _ = strings.Cut(c.r.Header.Get("X-Amz-Target"), ".")
		if op, ok := table()[c.operation]; ok {
			return op(c)
		}
		return func() *apiError {
			return &apiError{status: http.StatusBadRequest, code: "UnknownOperationException",
				message: "ec2sim does not serve " + c.service.name + ":" + c.operation}
		}
	}
}

// onJSON makes an operation of a function from input to output.
func onJSON[In, Out any](resources func(In) []string, run func(*call, In) (Out, *apiError)) operation {
	return func(c *call) func() *apiError {
		var in In
		readErr := json.Unmarshal(c.body, &in)
		if readErr == nil {
			c.resources = resources(in)
		}
		return func() *apiError {
			if readErr != nil {
				return unreadable(readErr)
			}
			out, err := run(c, in)
			if err != nil {
				return err
			}
			body, encodeErr := json.Marshal(out)
			if encodeErr != nil {
				panic(encodeErr) // outputs are our own structs
			}
			c.w.Header().Set("X-Amzn-Requestid", c.id)
			c.reply(http.StatusOK, "application/x-amz-json-1.1", body)
			return nil
		}
	}
}

func unreadable(err error) *apiError {
	message := err.Error()
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		message = wrong.Field + " cannot be a " + wrong.Value
	}
	return &apiError{status: http.StatusBadRequest, code: "SerializationException", message: message}
}

func validation(message string) *apiError {
	return &apiError{status: http.StatusBadRequest, code: "ValidationException", message: message}
}

func failJSON(c *call, err *apiError) {
	c.w.Header().Set("X-Amzn-Requestid", c.id)
	body, _ := json.Marshal(struct {
		Type    string `json:"__type"`
		Message string `json:"message,omitempty"`
	}{err.code, err.message})
	c.reply(err.status, "application/x-amz-json-1.1", body)
}

// epoch is how this protocol writes times.
func epoch(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
