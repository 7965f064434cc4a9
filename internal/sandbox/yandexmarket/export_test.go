package yandexmarket

import (
	"slices"
	"strings"

	"syncd/internal/sandbox/kit"
)

// Unserved says whether "METHOD /path/{variable}" is no method of the sandbox.
func Unserved(name string) bool {
	method, path, _ := strings.Cut(name, " ")
	_, _, ok, _ := findRoute(method, path)
	return !ok
}

// Variants are the forms of a kind of fault.
func Variants(kind kit.FaultKind) []string { return slices.Clone(faultKinds[kind]) }
