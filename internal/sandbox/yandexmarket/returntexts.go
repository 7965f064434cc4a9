package yandexmarket

// returnReasons are pairs of reasonType and subreasonType that belong together (OpenAPI document); the second is optional.
var returnReasons = []struct{ reason, detail string }{
	{"DOES_NOT_FIT", "USER_DID_NOT_LIKE"}, {"DOES_NOT_FIT", "USER_CHANGED_MIND"}, {"DOES_NOT_FIT", ""},
	{"BAD_QUALITY", "DAMAGED"}, {"BAD_QUALITY", "NOT_WORKING"}, {"BAD_QUALITY", "INCOMPLETENESS"}, {"BAD_QUALITY", "BROKEN"},
	{"WRONG_ITEM", "WRONG_COLOR"}, {"WRONG_ITEM", "DID_NOT_MATCH_DESCRIPTION"}, {"DAMAGE_DELIVERY", ""}, {"UNKNOWN", "UNKNOWN"},
}

var returnComments = []string{
	"Не включается, мигает красный индикатор", "Не подошёл размер", "Скол на корпусе, фото приложил", "Цвет не как на сайте: заказывала «мята», пришёл салатовый",
	"Передумал", "Не хватает крышки & шнура", "Коробка вскрыта, внутри б/у", "Разбито при доставке", "",
}

// refundStatuses are the values of RefundStatusType.
var refundStatuses = []string{
	"STARTED_BY_USER", "REFUND_IN_PROGRESS", "REFUNDED", "FAILED", "WAITING_FOR_DECISION", "DECISION_MADE", "REFUNDED_WITH_BONUSES",
	"REFUNDED_BY_SHOP", "CANCELLED", "REJECTED", "COMPLETE_WITHOUT_REFUND", "PREMODERATION_DISPUTE", "PREMODERATION_DECISION_WAITING",
	"PREMODERATION_DECISION_MADE", "PREMODERATION_SELECT_DELIVERY", "UNKNOWN",
}

// shipmentStatuses are the values of ReturnShipmentStatusType.
var shipmentStatuses = []string{
	"CREATED", "RECEIVED", "IN_TRANSIT", "READY_FOR_PICKUP", "PICKED", "LOST", "EXPIRED", "CANCELLED", "FULFILMENT_RECEIVED",
	"PREPARED_FOR_UTILIZATION", "NOT_IN_DEMAND", "UTILIZED", "READY_FOR_EXPROPRIATION", "RECEIVED_FOR_EXPROPRIATION", "UNKNOWN",
}
