const names = [...REWARDS, ...ADAPTERS];
document.body.classList.toggle("long", names.some((name) => name.length > 16)); // a gauge then stands below its name
drawHead();
startLimits();
startFront();
startParallel();
startChoice();
onChange(drawLines);
startTable();
drawCosts();
drawClaims();
drawMade();
startTexts();
startCompare();
startLooking();
change({});
