package yandexmarket

// Classify is classify.
var Classify = classify

// Parallel is parallel.
var Parallel = parallel
