package compose

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/compose-spec/compose-go/v2/schema"
)

// Schema is the JSON schema of Compose files with x-tender in it, for editors.
func Schema() ([]byte, error) {
	var root map[string]any
	if err := json.Unmarshal([]byte(schema.Schema), &root); err != nil {
		return nil, fmt.Errorf("read the Compose schema: %w", err)
	}
	defs := asMap(root["$defs"])
	for _, at := range []struct {
		in    any
		words *word
	}{{root, projectWords}, {defs["service"], serviceWords}, {defs["volume"], volumeWords}} {
		properties := asMap(asMap(at.in)["properties"])
		properties[extensionKey] = at.words.schema()
		asMap(at.in)["properties"] = properties
	}
	root["title"] = "Compose files, with x-tender"
	delete(root, "$id")
	b, err := json.MarshalIndent(root, "", "  ")
	return append(b, '\n'), err
}

// schema says what s is. Keys that this version does not know are left out.
func (s *word) schema() map[string]any {
	out := map[string]any{}
	switch {
	case s.keys != nil:
		properties := map[string]any{}
		for key, below := range s.keys {
			if !below.later {
				properties[key] = below.schema()
			}
		}
		out["type"], out["properties"], out["additionalProperties"] = "object", properties, false
		if len(s.must) > 0 {
			out["required"] = s.must
		}
	case s.free != nil:
		out["type"], out["additionalProperties"] = "object", s.free.schema()
	case s.items != nil:
		out["type"], out["items"] = "array", s.items.schema()
	case len(s.enum) > 0:
		values := []any{}
		for _, v := range s.enum {
			values = append(values, v)
			if n, err := strconv.Atoi(v); err == nil {
				values = append(values, n)
			}
		}
		out["enum"] = values
	case s.kind == "boolean":
		out["type"] = []string{"boolean", "string"} // a variable is text
	case s.kind != "":
		out["type"] = s.kind
	default:
		out["type"] = []string{"string", "number", "boolean"}
		if len(s.also) > 0 {
			out["type"] = []string{"string", "number", "boolean", "null"}
		}
	}
	if s.or != nil {
		out = map[string]any{"oneOf": []any{s.or.schema(), out}}
	}
	if s.about != "" {
		out["description"] = s.about
	}
	return out
}
