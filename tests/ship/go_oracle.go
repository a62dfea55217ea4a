// Go's own text/template on what is given on stdin: a list of {"template", "data"} in JSON; prints a list of texts.
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

func main() {
	var tasks []struct {
		Template string
		Data     map[string]any
	}
	if err := json.NewDecoder(os.Stdin).Decode(&tasks); err != nil {
		panic(err)
	}
	texts := []string{}
	for _, task := range tasks {
		var text strings.Builder
		parsed := template.Must(template.New("").Option("missingkey=zero").Parse(task.Template))
		if err := parsed.Execute(&text, task.Data); err != nil {
			panic(err)
		}
		texts = append(texts, text.String())
	}
	json.NewEncoder(os.Stdout).Encode(texts)
}
