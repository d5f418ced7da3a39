// chart-render: renders a Helm chart the way Helm does, for tests on machines that have no Helm. It is not Helm.
//
// The template language and its functions are the same libraries (text/template and sprig). What Helm adds and this
// chart needs is here: include, tpl, required, toYaml, fromYaml, .Files.Get and .Capabilities.APIVersions.Has. There are
// no subcharts, no hooks and no cluster to look things up in.
//
//	chart-render [-api GROUP/VERSION]... [-notes] CHART [VALUES.yaml...]
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"github.com/ghodss/yaml"
)

const release, namespace = "pay", "payments"

type versions []string

func (v versions) Has(name string) bool {
	for _, known := range v {
		if known == name {
			return true
		}
	}
	return false
}
func (v *versions) String() string     { return strings.Join(*v, ",") }
func (v *versions) Set(s string) error { *v = append(*v, s); return nil }

// files is what templates may read besides themselves: everything outside templates/.
type files struct{ chart string }

func (f files) Get(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(f.chart, name))
	return string(text), err
}

func main() {
	apis := versions{"v1", "apps/v1", "policy/v1", "autoscaling/v2", "networking.k8s.io/v1"}
	flag.Var(&apis, "api", "an API that the cluster has, besides the usual ones")
	notes := flag.Bool("notes", false, "print what is shown after an installation instead")
	flag.Parse()
	if err := render(flag.Arg(0), flag.Args()[1:], apis, *notes); err != nil {
		fmt.Fprintln(os.Stderr, "chart-render:", err)
		os.Exit(1)
	}
}

func render(chart string, overlays []string, apis versions, notes bool) error {
	meta, err := read(filepath.Join(chart, "Chart.yaml"))
	if err != nil {
		return err
	}
	values, err := read(filepath.Join(chart, "values.yaml"))
	if err != nil {
		return err
	}
	for _, overlay := range overlays {
		more, err := read(overlay)
		if err != nil {
			return err
		}
		merge(values, more)
	}
	// Helm gives Chart's fields capitals.
	capitals := map[string]interface{}{}
	for key, value := range meta {
		capitals[strings.ToUpper(key[:1])+key[1:]] = value
	}
	world := map[string]interface{}{
		"Values":       values,
		"Chart":        capitals,
		"Release":      map[string]interface{}{"Name": release, "Namespace": namespace, "Service": "Helm", "IsInstall": true, "Revision": 1},
		"Capabilities": map[string]interface{}{"APIVersions": apis, "KubeVersion": map[string]interface{}{"Version": "v1.34.0", "Major": "1", "Minor": "34"}},
		"Files":        files{chart},
	}

	all := template.New(chart).Option("missingkey=zero")
	functions(all)
	var names []string
	root := filepath.Join(chart, "templates")
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(chart, path)
		if err != nil {
			return err
		}
		names = append(names, name)
		_, err = all.New(name).Parse(string(text))
		return err
	})
	if err != nil {
		return err
	}
	sort.Strings(names)
	for _, name := range names {
		isNotes := filepath.Base(name) == "NOTES.txt"
		if strings.HasPrefix(filepath.Base(name), "_") || isNotes != notes {
			continue
		}
		world["Template"] = map[string]interface{}{"Name": name, "BasePath": "templates"}
		var out bytes.Buffer
		if err := all.ExecuteTemplate(&out, name, world); err != nil {
			return err
		}
		text := strings.ReplaceAll(out.String(), "<no value>", "")
		if notes {
			fmt.Print(text)
		} else if strings.TrimSpace(text) != "" {
			fmt.Printf("---\n# Source: %s\n%s\n", name, strings.TrimSpace(text))
		}
	}
	return nil
}

func functions(all *template.Template) {
	functions := sprig.TxtFuncMap()
	delete(functions, "env")
	delete(functions, "expandenv")
	functions["toYaml"] = func(value interface{}) (string, error) {
		text, err := yaml.Marshal(value)
		return strings.TrimSuffix(string(text), "\n"), err
	}
	functions["fromYaml"] = func(text string) (map[string]interface{}, error) {
		value := map[string]interface{}{}
		return value, yaml.Unmarshal([]byte(text), &value)
	}
	functions["toJson"] = func(value interface{}) (string, error) {
		text, err := json.Marshal(value)
		return string(text), err
	}
	functions["required"] = func(message string, value interface{}) (interface{}, error) {
		if text, isText := value.(string); value == nil || isText && text == "" {
			return nil, fmt.Errorf("%s", message)
		}
		return value, nil
	}
	functions["include"] = func(name string, data interface{}) (string, error) {
		var out bytes.Buffer
		err := all.ExecuteTemplate(&out, name, data)
		return out.String(), err
	}
	functions["tpl"] = func(text string, data interface{}) (string, error) {
		one, err := all.Clone()
		if err != nil {
			return "", err
		}
		if one, err = one.New("tpl").Parse(text); err != nil {
			return "", err
		}
		var out bytes.Buffer
		err = one.Execute(&out, data)
		return out.String(), err
	}
	all.Funcs(functions)
}

func read(path string) (map[string]interface{}, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	value := map[string]interface{}{}
	if err := yaml.Unmarshal(text, &value); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return value, nil
}

// merge lays `more` over `base`, as Helm does with values: tables are merged, all else is replaced, null removes.
func merge(base, more map[string]interface{}) {
	for key, value := range more {
		below, isTable := base[key].(map[string]interface{})
		above, alsoTable := value.(map[string]interface{})
		switch {
		case value == nil:
			delete(base, key)
		case isTable && alsoTable:
			merge(below, above)
		default:
			base[key] = value
		}
	}
}
