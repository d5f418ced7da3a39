<?php
// Pays with PHP's curl: php pay.php URL
$key = getenv('KEY');
$headers = $key ? ["Authorization: Bearer $key"] : [];

$headers[] = 'Content-Type: application/json';
$call = curl_init($argv[1]);
curl_setopt($call, CURLOPT_HTTPHEADER, $headers);
curl_setopt($call, CURLOPT_POSTFIELDS, json_encode(['amount' => '12.50']));
curl_setopt($call, CURLOPT_RETURNTRANSFER, true);
$answer = curl_exec($call);

if ($answer === false) {
    fwrite(STDERR, curl_error($call) . "\n");
    exit(1);
}
echo curl_getinfo($call, CURLINFO_RESPONSE_CODE), ' ', $answer, "\n";
