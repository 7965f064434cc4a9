package yandexmarket

import (
	"fmt"
	"math/rand/v2"
	"time"

	"syncd/internal/sandbox/kit"
)

// TimeForm is how the API writes moments. All its examples have whole seconds and an offset; its notifications have
// fractions and Z.
type TimeForm int

const (
	// TimesMoscow is 2026-09-01T10:05:12+03:00.
	TimesMoscow TimeForm = iota
	// TimesUTC is 2026-09-01T07:05:12Z.
	TimesUTC
	// TimesMilli is 2026-09-01T10:05:12.213+03:00.
	TimesMilli
	// TimesNano is 2026-09-01T07:05:12.213759084Z, without zeros at the end.
	TimesNano
	// TimesMixed is any of them and other offsets, by the moment.
	TimesMixed
)

// moscow is the zone of the marketplace's own clocks. A fixed one: Moscow has had no other since 2014, and no zone database
// is needed.
var moscow = time.FixedZone("MSK", 3*60*60)

// write writes a moment in nanoseconds.
func (f TimeForm) write(ns int64) string {
	at := time.Unix(0, ns)
	if f == TimesMixed {
		f = TimeForm((ns/1e9 + ns/1e3) % 5)
	}
	switch f {
	case TimesMixed:
		return at.In(time.FixedZone("", 5*60*60)).Format("2006-01-02T15:04:05.000000-07:00")
	case TimesUTC:
		return at.UTC().Format(time.RFC3339)
	case TimesMilli:
		return at.In(moscow).Format("2006-01-02T15:04:05.000Z07:00")
	case TimesNano:
		return at.UTC().Format(time.RFC3339Nano)
	}
	return at.In(moscow).Format(time.RFC3339)
}

// when writes a moment as this business' answers do.
func (b *Business) when(ns int64) string { return b.spec.World.Times.write(ns) }

// product is something a business sells.
type product struct {
	sku   string // the seller's own: shopSku, offerId
	name  string
	price int64 // roubles
}

func newProducts(r *rand.Rand) []product {
	out := make([]product, len(productNames))
	for i, n := range r.Perm(len(productNames)) {
		out[i] = product{
			sku:   fmt.Sprintf("%s%d%s", kit.Pick(r, []string{"", "SKU-", "art."}), 10_000+r.IntN(90_000), kit.Pick(r, []string{"", "-01", "/XL", "_бел"})),
			name:  productNames[n],
			price: 199 + r.Int64N(8000),
		}
	}
	return out
}

// buyer is who writes, as far as sellers see it.
type buyer struct{ name, publicID string }

// newBuyer draws one. Name and public id can each be missing.
func newBuyer(r *rand.Rand) buyer {
	b := buyer{name: kit.Pick(r, buyerNames), publicID: kit.HexID(r, 13)}
	if kit.Chance(r, 0.05) {
		b.name = ""
	}
	if kit.Chance(r, 0.05) {
		b.publicID = ""
	}
	return b
}

var buyerNames = []string{
	"Алёна К.", "Иван П.", "Мария С.", "Екатерина", "Дмитрий В.", "ольга.l", "Сергей Ж.", "Анна", "Наталья Р.", "Юлия Ш.",
	"Артём Н.", "Гульнара Х.", "Татьяна М.", "Алексей «Лёха»", "Виктория", "Рустам Г.", "Светлана Ю.", "Николай Ф.", "Айгуль", "Пётр & Ко",
}

var businessNames = []string{
	"ИП Соколова М. А.", "ООО «Северный дом»", "ИП Гаджиев Р. Т.", "ООО «Лён и хлопок»", "ИП Петренко О. В.", "Верба&Ко",
}

var productNames = []string{
	"Термокружка 450 мл", "Футболка оверсайз хлопок", "Наволочка сатин 50×70", "Сковорода блинная 24 см", "Лампа настольная светодиодная",
	"Рюкзак школьный ортопедический", "Кофе в зёрнах 1 кг", "Шампунь для собак 300 мл", "Кабель USB-C 60 Вт, 2 м", "Кроссовки для бега",
	"Органайзер для специй", "Конструктор деревянный", "Крем для рук 75 мл", "Коврик для йоги 6 мм", "Чайник электрический 1,7 л",
	"Плед флисовый 150×200", "Фонарь налобный", "Полотенце банное махровое", "Пазл «Зимний лес», 1000 деталей", "Носки, 10 пар",
}
