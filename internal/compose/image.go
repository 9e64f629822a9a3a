package compose

import (
	"bytes"
	"fmt"

	"go.yaml.in/yaml/v4"

	tender "github.com/tenderhq/tender"
)

// WithImage puts another image into a normal form. NotFound: it has no such service.
func WithImage(yml []byte, service, image string) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(yml, &doc); err != nil {
		return nil, tender.Errorf(tender.Invalid, "read the normal form: %w", err)
	}
	n := &doc
	if len(doc.Content) > 0 {
		n = doc.Content[0]
	}
	for _, key := range []string{"services", service, "image"} {
		if n = child(n, key); n == nil {
			return nil, tender.Errorf(tender.NotFound, "service %q has no image", service)
		}
	}
	*n = yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: image}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&doc); err != nil {
		return nil, fmt.Errorf("write the normal form: %w", err)
	}
	return b.Bytes(), e.Close()
}

// child is the value under a key of a mapping; nil: it has none.
func child(n *yaml.Node, key string) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}
