package yandexmarket

import (
	"net/http"

	"syncd/internal/sandbox/kit"
)

// coreRoutes are the methods about cabinet, stores and key.
var coreRoutes = map[string]route{
	"GET /v2/campaigns":                         {method: MethodGetCampaigns, limit: perHour{1000, 1000}, open: true, serve: serveCampaigns},
	"GET /v2/campaigns/{campaignId}":            {method: MethodGetCampaign, limit: perHour{5000, 5000}, serve: serveCampaign},
	"POST /v2/auth/token":                       {method: MethodGetAuthTokenInfo, limit: perHour{100, 100}, open: true, serve: serveToken},
	"POST /v2/businesses/{businessId}/settings": {method: MethodGetBusinessSettings, limit: perHour{100, 100}, serve: serveSettings},
}

type wireBusiness struct {
	ID   int64  `json:"id"`
	Name string `json:"name"`
}

type wireCampaign struct {
	Domain       string       `json:"domain"`
	ID           int64        `json:"id"`
	Business     wireBusiness `json:"business"`
	Placement    Placement    `json:"placementType"`
	Availability Availability `json:"apiAvailability"`
}

func (b *Business) campaign(st *store) wireCampaign {
	return wireCampaign{st.domain, st.id, wireBusiness{b.spec.ID, b.spec.Name}, st.placement, st.availability}
}

// unpaged is the page size of a method without a default: all there is.
const unpaged = 1 << 20

// serveCampaigns is the one method without the envelope.
func serveCampaigns(c *call) answer {
	type listed struct {
		store *store
		place int64
	}
	var all []listed
	for i, st := range c.b.stores {
		all = append(all, listed{st, int64(i)})
	}
	stores, next, refusal := page(c, all, pageSizes{byDefault: unpaged, max: 100}, "", func(l listed, _ uint64) pageKey { return pageKey{l.place} })
	if refusal != nil {
		return *refusal
	}
	out := struct {
		Campaigns []wireCampaign `json:"campaigns"`
		Paging    paging         `json:"paging"`
	}{Campaigns: []wireCampaign{}, Paging: paging{next}}
	for _, l := range stores {
		out.Campaigns = append(out.Campaigns, c.b.campaign(l.store))
	}
	return kit.JSON(http.StatusOK, kit.TypeJSON, out)
}

func serveCampaign(c *call) answer {
	return kit.JSON(http.StatusOK, kit.TypeJSON, struct {
		Campaign wireCampaign `json:"campaign"`
	}{c.b.campaign(c.store)})
}

func serveToken(c *call) answer {
	type apiKey struct {
		Name   string   `json:"name"`
		Scopes []string `json:"authScopes"`
	}
	k := apiKey{Name: c.key.name}
	for _, s := range c.key.scopes {
		k.Scopes = append(k.Scopes, s.wire())
	}
	return okAnswer(struct {
		APIKey apiKey `json:"apiKey"`
	}{k})
}

func serveSettings(c *call) answer {
	type settings struct {
		OnlyDefaultPrice bool   `json:"onlyDefaultPrice"`
		Currency         string `json:"currency"`
	}
	level := "NONE"
	if c.b.spec.Medium {
		level = "MEDIUM"
	}
	return okAnswer(struct {
		Info     wireBusiness `json:"info"`
		Settings settings     `json:"settings"`
		Level    string       `json:"subscriptionLevel"`
	}{wireBusiness{c.b.spec.ID, c.b.spec.Name}, settings{true, "RUR"}, level})
}
