package config_test

import (
	"errors"
	"strings"
	"time"

	"syncd/internal/config"
)

// catalog is what the wiring of syncd hands over, with a stand-in for the parser of schedules.
func catalog() config.Catalog {
	return config.Catalog{
		EventTypes: []string{"syncd.schema_changed"},
		OwnHeaders: []string{
			"connection", "content-encoding", "content-length", "content-type", "expect", "host", "idempotency-key", "x-idempotency-key",
			"keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "user-agent",
			"webhook-*", "syncd-*",
		},
		Marketplaces: []config.Marketplace{
			{
				Name: "wildberries",
				Groups: []config.Group{
					{Name: "feedbacks", DefaultURL: "https://feedbacks-api.wildberries.ru"},
					{Name: "chat", DefaultURL: "https://buyer-chat-api.wildberries.ru"},
					{Name: "returns", DefaultURL: "https://returns-api.wildberries.ru"},
				},
				Streams: []config.Stream{
					{
						Name: "chat_events", Schedule: "@every 5s", Overlap: time.Minute,
						EventTypes: []string{"wildberries.chat_event.created"},
					},
					{
						Name: "chats", Schedule: "@every 10m", Sweeps: true,
						EventTypes: []string{"wildberries.chat.created", "wildberries.chat.updated"},
					},
					{
						Name: "questions", Schedule: "@every 15s", Overlap: 3 * time.Hour, Sweeps: true,
						EventTypes: []string{"wildberries.question.created", "wildberries.question.updated"},
					},
					{
						Name: "feedbacks", Schedule: "@every 15s", Overlap: 3 * time.Hour, Sweeps: true,
						EventTypes: []string{"wildberries.feedback.created", "wildberries.feedback.updated"},
					},
					{
						Name: "claims", Schedule: "@every 60s", Sweeps: true,
						EventTypes: []string{"wildberries.claim.created", "wildberries.claim.updated"},
					},
					{
						Name: "feedback_pins", Schedule: "@every 10m", Off: true, Sweeps: true,
						EventTypes: []string{
							"wildberries.feedback_pin.created", "wildberries.feedback_pin.updated", "wildberries.feedback_pin.removed",
						},
					},
				},
				CheckToken: func(token string) error {
					if strings.HasPrefix(token, "foreign") {
						return errors.New("not a Wildberries token: " + token)
					}
					return nil
				},
			},
			{
				Name: "yandex_market", Keys: []string{"business_id", "campaigns"}, Groups: []config.Group{{Name: "api", DefaultURL: "https://api.partner.market.yandex.ru"}},
				Streams: []config.Stream{
					{Name: "chats", Schedule: "@every 60s", Sweeps: true, EventTypes: []string{"yandex_market.chat.created", "yandex_market.chat.updated"}},
					{Name: "chat_messages", Schedule: "@every 60s", EventTypes: []string{"yandex_market.chat_message.created"}},
					{
						Name: "goods_feedbacks", Schedule: "@every 2m", Overlap: 72 * time.Hour, Sweeps: true,
						EventTypes: []string{
							"yandex_market.goods_feedback.created", "yandex_market.goods_feedback.updated",
							"yandex_market.goods_feedback_comment.created", "yandex_market.goods_feedback_comment.updated",
						},
					},
					{
						Name: "goods_questions", Schedule: "@every 5m", Overlap: 72 * time.Hour, Sweeps: true,
						EventTypes: []string{
							"yandex_market.goods_question.created", "yandex_market.goods_question.updated",
							"yandex_market.goods_answer.created", "yandex_market.goods_answer.updated",
						},
					},
					{
						Name: "returns", Schedule: "@every 5m", Overlap: 24 * time.Hour, Sweeps: true,
						EventTypes: []string{"yandex_market.return.created", "yandex_market.return.updated"},
					},
				},
			},
		},
		CheckSchedule: func(expr string) error {
			if strings.HasPrefix(expr, "@every ") || len(strings.Fields(expr)) == 5 || len(strings.Fields(expr)) == 6 {
				return nil
			}
			return errors.New("expected 5 or 6 fields")
		},
	}
}
