package ec2sim

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// parameter is one SSM parameter; its versions count from 1.
type parameter struct {
	kind     string
	versions []parameterVersion
}

type parameterVersion struct {
	value    string
	modified time.Time
}

// PutParameter writes a new version of an SSM parameter, made when it does not
// exist, and gives the version's number. An empty kind keeps the type, at first String.
func (s *Sim) PutParameter(name, kind, value string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.parameter(name, kind)
	p.versions = append(p.versions, parameterVersion{value, time.Now()})
	return len(p.versions)
}

func (s *Sim) parameter(name, kind string) *parameter {
	p := s.params[name]
	if p == nil {
		p = &parameter{kind: "String"}
		s.params[name] = p
	}
	if kind != "" {
		p.kind = kind
	}
	return p
}

// putParameter brings a parameter to the last of values. Callers hold s.mu.
func (s *Sim) putParameter(name, kind string, values Versions) {
	p := s.parameter(name, kind)
	if n := len(p.versions); n > 0 && len(values) > 0 {
		if last := values[len(values)-1]; last != p.versions[n-1].value {
			p.versions = append(p.versions, parameterVersion{last, time.Now()})
		}
		return
	}
	for _, v := range values {
		p.versions = append(p.versions, parameterVersion{v, time.Now()})
	}
}

// maxParameters is how many names one GetParameters may ask for.
// https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameters.html
const maxParameters = 10

func ssmOperations() map[string]operation {
	return map[string]operation{
		"GetParameter":  onJSON(getParameterInput.resources, getParameter),
		"GetParameters": onJSON(getParametersInput.resources, getParameters),
	}
}

type getParameterInput struct {
	Name           string
	WithDecryption bool
}

type getParametersInput struct {
	Names          []string
	WithDecryption bool
}

type ssmParameter struct {
	ARN              string
	DataType         string
	LastModifiedDate float64
	Name             string
	Selector         string `json:",omitempty"`
	Type             string
	Value            string
	Version          int
}

type getParameterOutput struct{ Parameter ssmParameter }

type getParametersOutput struct {
	Parameters        []ssmParameter
	InvalidParameters []string
}

func (in getParameterInput) resources() []string { return []string{parameterName(in.Name)} }

func (in getParametersInput) resources() []string {
	names := make([]string, len(in.Names))
	for i, n := range in.Names {
		names[i] = parameterName(n)
	}
	return names
}

// parameterName takes the ARN form and the version off.
func parameterName(asked string) string {
	name, _ := parameterSelector(asked)
	return name
}

// parameterSelector splits "name", "name:3", and the ARN form of both. A
// parameter's ARN holds its name without a leading slash only if there is no
// other slash in it.
func parameterSelector(asked string) (name, selector string) {
	if arn := strings.SplitN(asked, ":", 6); len(arn) == 6 && arn[0] == "arn" {
		asked = strings.TrimPrefix(arn[5], "parameter")
		if path := strings.TrimPrefix(asked, "/"); !strings.Contains(path, "/") {
			asked = path
		}
	}
	if i := strings.LastIndexByte(asked, ':'); i >= 0 {
		return asked[:i], asked[i:]
	}
	return asked, ""
}

func getParameter(c *call, in getParameterInput) (getParameterOutput, *apiError) {
	p, err := c.findParameter(in.Name, in.WithDecryption)
	return getParameterOutput{p}, err
}

func getParameters(c *call, in getParametersInput) (getParametersOutput, *apiError) {
	out := getParametersOutput{Parameters: []ssmParameter{}, InvalidParameters: []string{}}
	if n := len(in.Names); n == 0 || n > maxParameters {
		return out, validation(fmt.Sprintf("1 validation error detected: Value '[%s]' at 'names' failed to satisfy constraint: "+
			"Member must have length less than or equal to %d and greater than or equal to 1", strings.Join(in.Names, ", "), maxParameters))
	}
	for _, name := range in.Names {
		if p, err := c.findParameter(name, in.WithDecryption); err != nil {
			out.InvalidParameters = append(out.InvalidParameters, name)
		} else {
			out.Parameters = append(out.Parameters, p)
		}
	}
	return out, nil
}

func (c *call) findParameter(asked string, decrypt bool) (ssmParameter, *apiError) {
	c.sim.mu.Lock()
	defer c.sim.mu.Unlock()
	name, selector := parameterSelector(asked)
	p := c.sim.params[name]
	if p == nil || c.hidden(name) {
		return ssmParameter{}, &apiError{status: http.StatusBadRequest, code: "ParameterNotFound"}
	}
	version := len(p.versions)
	if selector != "" {
		n, err := strconv.Atoi(selector[1:])
		if err != nil || n < 1 || n > len(p.versions) {
			return ssmParameter{}, &apiError{status: http.StatusBadRequest, code: "ParameterVersionNotFound",
				message: fmt.Sprintf("Systems Manager could not find version %s of %s. Verify the version and try again.", selector[1:], name)}
		}
		version = n
	}
	v := p.versions[version-1]
	value := v.value
	if p.kind == "SecureString" && !decrypt {
		// What KMS gives starts with its header, and is never the value.
		value = "AQICAHh" + base64.StdEncoding.EncodeToString([]byte(throwaway(name, 120)))
	}
	return ssmParameter{
		ARN:      c.sim.cfg.arn("ssm", "parameter/"+strings.TrimPrefix(name, "/")),
		DataType: "text", LastModifiedDate: epoch(v.modified), Name: name, Selector: selector,
		Type: p.kind, Value: value, Version: version,
	}, nil
}
