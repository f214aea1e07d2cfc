module github.com/amiagent/amiagent

go 1.26.0

require (
	github.com/cyphar/filepath-securejoin v0.7.0 // indirect
	go.yaml.in/yaml/v3 v3.0.6 // indirect
)
