const names = [...REWARDS, ...POINTS.flatMap((point) => Object.keys(point.weights))];
document.body.classList.toggle("long", names.some((name) => name.length > 16)); // a gauge then stands below its name
drawHead();
startFront();
startChoice();
onChange(drawLines);
startTable();
drawClaims();
drawMade();
startTexts();
change({});
