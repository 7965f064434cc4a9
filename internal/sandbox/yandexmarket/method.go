package yandexmarket

import (
	"fmt"
	"maps"
	"strings"
)

// Method names a method of the API by its operationId. Each has a budget of its own.
type Method string

// The methods of the core and of chats.
const (
	MethodGetCampaigns        Method = "getCampaigns"
	MethodGetCampaign         Method = "getCampaign"
	MethodGetAuthTokenInfo    Method = "getAuthTokenInfo"
	MethodGetBusinessSettings Method = "getBusinessSettings"
	MethodGetChats            Method = "getChats"
	MethodGetChat             Method = "getChat"
	MethodGetChatHistory      Method = "getChatHistory"
	MethodGetChatMessage      Method = "getChatMessage"
	MethodCreateChat          Method = "createChat"
	MethodSendMessageToChat   Method = "sendMessageToChat"
	MethodSendFileToChat      Method = "sendFileToChat"
)

// perHour are the documented requests an hour, without and with the Medium subscription (x-resource-limit-config).
type perHour struct{ none, medium int }

// route is one method of the API.
type route struct {
	method Method
	limit  perHour
	// scopes are those of which a key needs one; nil: any.
	scopes []Scope
	// open is answered for a store, or a business, whose API is disabled too.
	open bool
	// multipart methods take multipart/form-data instead of JSON, and bodies as large as a file.
	multipart bool
	// serve is called with the business locked, and up to date.
	serve func(*call) answer
}

// routes maps "METHOD /path/{variable}" to a method. A file that serves methods has a table of its own, which is joined
// here. A {businessId} or {campaignId} in the path is resolved by the core.
var routes = join(coreRoutes, chatRoutes, feedbackRoutes, questionRoutes, returnRoutes)

func join(tables ...map[string]route) map[string]route {
	all := make(map[string]route)
	for _, table := range tables {
		for path, rt := range table {
			if _, twice := all[path]; twice {
				panic(fmt.Sprintf("yandexmarket: %s is served twice", path))
			}
			all[path] = rt
		}
	}
	return all
}

// documented are the limits of all methods.
var documented = func() map[Method]perHour {
	out := make(map[Method]perHour)
	for rt := range maps.Values(routes) {
		out[rt.method] = rt.limit
	}
	return out
}()

// segments are the routes by the parts of their paths.
var segments = func() map[string][]string {
	out := make(map[string][]string)
	for name := range routes {
		out[name] = strings.Split(name, "/")
	}
	return out
}()

// findRoute finds the method of a request, and the variables of its path. If the path is there with other HTTP methods
// only, allowed says so.
func findRoute(method, path string) (rt route, vars map[string]string, ok, allowed bool) {
	parts := strings.Split(path, "/")
	allowed = true
	for name, pattern := range segments {
		found, matches := match(pattern[1:], parts[min(1, len(parts)):])
		if !matches {
			continue
		}
		if strings.TrimSuffix(pattern[0], " ") == method {
			return routes[name], found, true, true
		}
		allowed = false
	}
	return route{}, nil, false, allowed
}

func match(pattern, parts []string) (map[string]string, bool) {
	if len(pattern) != len(parts) {
		return nil, false
	}
	vars := make(map[string]string)
	for i, p := range pattern {
		if name, ok := strings.CutPrefix(p, "{"); ok && parts[i] != "" {
			vars[strings.TrimSuffix(name, "}")] = parts[i]
		} else if p != parts[i] {
			return nil, false
		}
	}
	return vars, true
}
